"""Writes the prepared tree of `zss_d2.data.spec.locations` from pairs of images and masks."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zss_d2.data.files.images import image_size, image_stamp, read_mask, read_pair
from zss_d2.data.files.listing import IMAGE_SUFFIXES, files_by_id, summarise
from zss_d2.data.labels import UndefinedLabelError, remap
from zss_d2.data.prepare.outcome import Outcome, count_notes, run_parallel
from zss_d2.data.spec.benchmark import Split
from zss_d2.data.spec.locations import split_folders
from zss_d2.errors import ZssError
from zss_d2.utils.writing import (
    WriteError,
    link_atomic,
    make_folder,
    remove_leftovers,
    write_atomic,
    write_mask,
)

FETCHED_REMEDY = "correct the mask, or fetch the original again"
# Modification times that some file systems keep are this far from those of others.
_CLOCK_STEP_S = 2.0


@dataclass(frozen=True)
class Pair:
    """An original image and the file that its mask is read from, by ``read`` -> (H, W) raw ids.

    ``more`` are further files that the mask depends on.
    """

    image_id: str
    image: Path
    mask: Path
    read: Callable[[Path], np.ndarray] = read_mask
    more: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Job:
    """What the workers need to know to prepare the pairs of one split."""

    images: Path
    annotations: Path
    lut: np.ndarray
    copy: bool

    def targets(self, pair: Pair) -> tuple[Path, Path]:
        """Return the files to write for ``pair``: image and mask."""
        image = self.images / f"{pair.image_id}{pair.image.suffix.lower()}"
        return image, self.annotations / f"{pair.image_id}.png"

    def stamp(self, pair: Pair) -> str:
        """Return what tells a mask that was made from these files, by this table, from others.

        Raises OSError if a file is missing.
        """
        digest = hashlib.sha256(self.lut.tobytes())
        for path in (pair.mask, *pair.more):
            status = path.stat()
            origin = (path.parent.name, path.name, status.st_size, status.st_mtime_ns)
            digest.update(repr(origin).encode())
        return digest.hexdigest()[:16]


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

    What is there already, made from the same files in the same way, is kept, so a second run
    continues the first. A bad pair is not written; every one of them becomes a problem naming the
    file and the reason.

    Args:
        lut: (N,) table of `zss_d2.data.labels.build_lut`.
        dry_run: only count what would be written; originals are not decoded.

    Raises WriteError if something cannot be written, or would be written over an original.
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
    for folder in (images, annotations):
        make_folder(folder)
        remove_leftovers(folder)
    results = list(run_parallel(functools.partial(_convert, job), pairs, workers, split.name))
    problems += [result for result in results if result not in _STATES]
    counts = Counter(result for result in results if result in _STATES)
    if counts["unrecorded"]:
        notes.append(
            f"{split.name}: {counts['unrecorded']} masks in {annotations} do not say what they "
            "were made from, as those of earlier versions, and are newer than their originals: "
            "kept. To make them anew, give another --output, or move that folder elsewhere"
        )
    kept = counts["kept"] + counts["unrecorded"]
    return Outcome(
        f"{split.name}: {counts['written']} prepared, {kept} were up to date, "
        f"{len(problems)} problem(s)",
        tuple(problems),
        tuple(notes),
    )


# What a pair can be after a preparation: written now, kept because its record says that it is made
# from these files, or kept because it has no record and is newer.
_STATES = ("written", "kept", "unrecorded")


def is_current(job: Job, pair: Pair) -> bool:
    """Whether the outputs exist, agree in size, and were made from these files by this table."""
    return _state(job, pair) != ""


def _state(job: Job, pair: Pair) -> str:
    """Return ``kept`` or ``unrecorded`` for a pair whose outputs are current, else nothing."""
    image_out, mask_out = job.targets(pair)
    try:
        if not is_placed(job, pair, image_out):
            return ""
        found = image_stamp(mask_out)
        if found:
            state = "kept" if found == job.stamp(pair) else ""
        else:
            sources = max(path.stat().st_mtime for path in (pair.image, pair.mask, *pair.more))
            state = "unrecorded" if mask_out.stat().st_mtime >= sources else ""
    except OSError:
        return ""
    # Where EXIF data stands behind the pixels, only decoding would tell which side is the width.
    size, there = image_size(mask_out), image_size(pair.image)
    return state if size and there and sorted(size) == sorted(there) else ""


def is_placed(job: Job, pair: Pair, image_out: Path) -> bool:
    """Whether the image is there in the way that is asked for; raises OSError if it is not."""
    if image_out.is_symlink() == job.copy:
        return False
    if not job.copy:
        return image_out.samefile(pair.image)
    there, original = image_out.stat(), pair.image.stat()
    same_time = abs(there.st_mtime - original.st_mtime) <= _CLOCK_STEP_S
    return same_time and there.st_size == original.st_size


def _convert(job: Job, pair: Pair) -> str:
    """Return one of `_STATES`, or the problem."""
    spare_originals(job, pair)
    if state := _state(job, pair):
        return state
    image_out, mask_out = job.targets(pair)
    try:
        stamp = job.stamp(pair)
        labels = remap(read_pair(pair.image, pair.mask, read=pair.read)[1], job.lut)
        labels = labels.astype(np.uint8 if job.lut.max() < 256 else np.uint16)
        write_mask(mask_out, labels, stamp)
        place_image(job, pair, image_out)
    except UndefinedLabelError as error:
        return f"{pair.mask}: {error} without a meaning; {FETCHED_REMEDY} (image {pair.image_id})"
    except WriteError:
        raise
    except ZssError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror}); check the file"
    return "written"


def place_image(job: Job, pair: Pair, image_out: Path) -> None:
    original = pair.image.resolve()
    if not job.copy:
        link_atomic(image_out, original)
        return

    def copy(temporary: Path) -> None:
        shutil.copyfile(original, temporary)
        status = original.stat()
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))

    write_atomic(image_out, copy, flush=False)


def spare_originals(job: Job, pair: Pair) -> None:
    """Raise WriteError if an output is an original itself, by whatever way of links."""
    for output in job.targets(pair):
        for original in (pair.image, pair.mask):
            if _is_file_of(output, original):
                raise WriteError(
                    f"{output}: would be written over the original {original}; give another "
                    "--output, or another DETECTRON2_DATASETS"
                )


def _is_file_of(output: Path, original: Path) -> bool:
    """Whether both are one file, by one name: a link may be replaced, the last name may not."""
    try:
        if output.is_symlink() or not output.samefile(original):
            return False
        return output.stat().st_nlink == 1 or output.resolve() == original.resolve()
    except OSError:
        return False


def _split_missing(pairs: list[Pair]) -> tuple[list[Pair], str]:
    """Return the pairs whose two files exist, and a phrase about the others, empty if none."""
    phrases, incomplete = [], set()
    for kind in ("image", "mask"):
        absent = {
            pair.image_id: getattr(pair, kind)
            for pair in pairs
            if not os.path.exists(getattr(pair, kind))
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
        f"{images} also holds {summarise(surplus)} that the list does not name; they are part of "
        "the data set too. To leave them out, give another --output"
    ]
