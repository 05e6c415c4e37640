"""Writes the prepared tree of `zss_d2.data.registry` from pairs of original images and masks."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zss_d2.data.benchmark import Split
from zss_d2.data.files import image_size, read_mask, read_pair, write_atomic, write_mask
from zss_d2.data.labels import UndefinedLabelError, remap
from zss_d2.data.outcome import Outcome, count_notes, run_parallel
from zss_d2.data.registry import IMAGE_SUFFIXES, files_by_id, split_folders, summarise
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Pair:
    """An original image and the file that its mask is read from, by ``read`` -> (H, W) raw ids."""

    image_id: str
    image: Path
    mask: Path
    read: Callable[[Path], np.ndarray] = read_mask


@dataclass(frozen=True)
class Job:
    """What the workers need to know to prepare the pairs of one split.

    ``images`` is None where the images stay where they are.
    """

    images: Path | None
    annotations: Path
    lut: np.ndarray
    copy: bool

    def targets(self, pair: Pair) -> tuple[Path | None, Path]:
        """Return the files to write for ``pair``: image (or None) and mask."""
        image = self.images and self.images / f"{pair.image_id}{pair.image.suffix.lower()}"
        return image, self.annotations / f"{pair.image_id}.png"


def prepare_split(
    split: Split,
    pairs: list[Pair],
    root: Path,
    lut: np.ndarray,
    *,
    workers: int = 1,
    copy: bool = False,
    skip_missing: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Write the train-id masks of ``pairs`` and link (or copy) their images below ``root``.

    What is there already and newer than its source is kept, so a second run continues the first.
    A bad pair is not written; every one of them becomes a problem naming the file and the reason.

    Args:
        lut: (N,) table of `zss_d2.data.benchmark.build_lut`.
        dry_run: only count what would be written; originals are not decoded.
    """
    problems, notes = [], count_notes(split, len(pairs), "the list names")
    images, annotations = split_folders(root, split)
    notes += _surplus_notes(images, {pair.image_id for pair in pairs})
    pairs, missing = _split_missing(pairs)
    if missing and skip_missing:
        notes.append(f"{split.name}: {missing}; skipped")
    elif missing:
        problems.append(
            f"{split.name}: {missing}; complete the download, give another list, or pass "
            "--skip-missing"
        )
    job = Job(images, annotations, lut, copy)
    if dry_run:
        kept = sum(is_current(job, pair) for pair in pairs)
        return Outcome(
            f"{split.name}: dry run: would prepare {len(pairs) - kept} in {annotations} and "
            f"{images}, {kept} are up to date, {len(problems)} problem(s)",
            tuple(problems),
            tuple(notes),
        )
    counts, bad = convert_pairs(job, pairs, workers, split.name)
    problems += bad
    return Outcome(
        f"{split.name}: {counts['written']} prepared, {counts['kept']} were up to date, "
        f"{len(problems)} problem(s)",
        tuple(problems),
        tuple(notes),
    )


def convert_pairs(
    job: Job, pairs: list[Pair], workers: int, label: str
) -> tuple[dict[str, int], list[str]]:
    """Do the job; returns how many were ``written`` and ``kept``, and a line per bad pair."""
    counts = {"written": 0, "kept": 0}
    problems = []
    for result in run_parallel(functools.partial(_convert, job), pairs, workers, label):
        if result in counts:
            counts[result] += 1
        else:
            problems.append(result)
    return counts, problems


def is_current(job: Job, pair: Pair) -> bool:
    """Whether the outputs exist, agree in size, and are newer than what they were made from."""
    image_out, mask_out = job.targets(pair)
    image_there = image_out or pair.image
    try:
        sources = max(pair.image.stat().st_mtime, pair.mask.stat().st_mtime)
        if mask_out.stat().st_mtime < sources:
            return False
        if image_out is not None and not _placed(job, pair, image_out):
            return False
    except OSError:
        return False
    size = image_size(mask_out)
    return size is not None and size == image_size(image_there)


def _placed(job: Job, pair: Pair, image_out: Path) -> bool:
    """Whether the image is there in the way that is asked for; raises OSError if it is not."""
    if image_out.is_symlink() == job.copy:
        return False
    if job.copy:
        return image_out.stat().st_size == pair.image.stat().st_size
    return image_out.samefile(pair.image)


def _convert(job: Job, pair: Pair) -> str:
    """Return ``written``, ``kept``, or the problem."""
    if is_current(job, pair):
        return "kept"
    try:
        labels = remap(read_pair(pair.image, pair.mask, read=pair.read)[1], job.lut)
    except ZssError as error:
        return str(error)
    except UndefinedLabelError as error:
        return (
            f"{pair.mask}: {error} not defined by the benchmark; correct or fetch the mask again "
            f"(image {pair.image_id})"
        )
    image_out, mask_out = job.targets(pair)
    write_mask(mask_out, labels.astype(np.uint8 if job.lut.max() < 256 else np.uint16))
    if image_out is not None:
        place = shutil.copyfile if job.copy else os.symlink
        write_atomic(image_out, functools.partial(place, pair.image.resolve()))
    return "written"


def _split_missing(pairs: list[Pair]) -> tuple[list[Pair], str]:
    """Return the pairs whose two files exist, and a phrase about the others, empty if none."""
    phrases, incomplete = [], set()
    for kind in ("image", "mask"):
        absent = {
            pair.image_id: getattr(pair, kind) for pair in pairs if not getattr(pair, kind).exists()
        }
        if absent:
            names = summarise([path.name for path in absent.values()])
            folder = next(iter(absent.values())).parent
            phrases.append(f"{kind}s missing in {folder}: {names}")
        incomplete |= absent.keys()
    present = [pair for pair in pairs if pair.image_id not in incomplete]
    phrase = f"of {len(pairs)} listed, " + " and ".join(phrases) if phrases else ""
    return present, phrase


def _surplus_notes(images: Path, listed: set[str]) -> list[str]:
    there = files_by_id(images, IMAGE_SUFFIXES) if images.is_dir() else {}
    surplus = sorted(there.keys() - listed)
    if not surplus:
        return []
    return [
        f"{images} also holds {summarise(surplus)} that the list does not name; they stay part of "
        "the data set until that folder and its annotations are deleted"
    ]
