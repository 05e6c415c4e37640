"""Turns original images and masks into the prepared tree that `zss_d2.data.registry` reads.

Shared by the command lines in ``datasets/``; each of them only knows where its originals lie.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zss_d2.data.benchmark import Benchmark, Split
from zss_d2.data.files import image_size, read_pair, read_prepared_pair, write_atomic, write_mask
from zss_d2.data.labels import UndefinedLabelError, remap
from zss_d2.data.registry import (
    IMAGE_SUFFIXES,
    files_by_id,
    load_records,
    prepared_root,
    split_folders,
    summarise,
)
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Pair:
    """An original image and its mask."""

    image_id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Job:
    """What the workers need to know to prepare the pairs of one split."""

    images: Path
    annotations: Path
    lut: np.ndarray
    copy: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a split: a summary, and one line per problem."""

    summary: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_id_list(path: Path) -> list[str]:
    """Read one image id per line; raises ZssError naming the file and the line."""
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
        raise ZssError(f"{path}: no such list; lists in that folder: {others}")
    ids: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1 or "/" in name or "\\" in name:
            raise ZssError(f"{path}: line {number}: {name!r} is not an image id; give one per line")
        if name in ids:
            raise ZssError(
                f"{path}: line {number}: {name!r} is also on line {ids[name]}; remove one"
            )
        ids[name] = number
    if not ids:
        raise ZssError(f"{path}: the list is empty; give one image id per line")
    return list(ids)


def prepare_split(
    benchmark: Benchmark,
    split: Split,
    pairs: list[Pair],
    root: Path,
    *,
    workers: int = 1,
    copy: bool = False,
    skip_missing: bool = False,
) -> Outcome:
    """Write the train-id masks of ``pairs`` and link (or copy) their images below ``root``.

    What is there already and newer than its source is kept, so a second run continues the first.
    A bad pair is not written; every one of them becomes a problem naming the file and the reason.
    """
    problems, notes = [], _count_notes(split, len(pairs), "the list names")
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
    job = Job(images, annotations, benchmark.lut, copy)
    counts = {"written": 0, "kept": 0}
    for result in _run(functools.partial(_prepare_pair, job), pairs, workers, split.name):
        if result in counts:
            counts[result] += 1
        else:
            problems.append(result)
    return Outcome(
        f"{split.name}: {counts['written']} prepared, {counts['kept']} were up to date, "
        f"{len(problems)} problem(s)",
        tuple(problems),
        tuple(notes),
    )


def check_split(
    benchmark: Benchmark, split: Split, root: Path, *, workers: int = 1, any_count: bool = False
) -> Outcome:
    """Verify a prepared split: pairs, number of images, readability, sizes and mask values.

    ``any_count`` turns a wrong number of images from a problem into a note.
    """
    try:
        records = load_records(benchmark, split, root)
    except ZssError as error:
        return Outcome(f"{split.name}: not usable", (str(error),))
    check = functools.partial(
        _check_record, num_classes=len(benchmark.classes), ignore_label=benchmark.ignore_label
    )
    problems = [line for line in _run(check, records, workers, split.name) if line]
    notes = _count_notes(split, len(records), f"{root} holds")
    if notes and not any_count:
        problems.append(f"{notes.pop()}; name your lists or pass --skip-missing to accept that")
    return Outcome(
        f"{split.name}: {len(records)} images checked, {len(problems)} problem(s)",
        tuple(problems),
        tuple(notes),
    )


def add_common_arguments(parser: argparse.ArgumentParser, benchmark: Benchmark) -> None:
    """Add the options that every ``datasets/prepare_*.py`` has."""
    parser.add_argument(
        "--output",
        type=Path,
        default=prepared_root(benchmark),
        metavar="DIR",
        help="folder to write images/SPLIT and annotations/SPLIT to "
        f"(default: $DETECTRON2_DATASETS/zss/{benchmark.name}, now %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="worker processes (default: one per core, now %(default)s)",
    )
    parser.add_argument(
        "--copy", action="store_true", help="copy the images instead of linking to the originals"
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="go on with the listed images that are there (scores are then not comparable)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; verify the counts, pairs, sizes and mask values of --output",
    )


def main(
    benchmark: Benchmark,
    args: argparse.Namespace,
    list_pairs: Callable[[], Mapping[str, list[Pair]]],
    *,
    custom_lists: bool = False,
) -> int:
    """Prepare or check all splits, print what happened, and return the exit status.

    Args:
        args: holds the options of `add_common_arguments`.
        list_pairs: gives {split name: pairs}; not called for a check.
        custom_lists: the user chose other lists, so counts may differ from the benchmark's.

    Returns:
        0, or 2 after one line per problem on the error stream.
    """
    try:
        if args.check:
            lenient = custom_lists or args.skip_missing
            outcomes = [
                check_split(benchmark, split, args.output, workers=args.workers, any_count=lenient)
                for split in benchmark.splits.values()
            ]
        else:
            outcomes = [
                prepare_split(
                    benchmark,
                    benchmark.splits[name],
                    pairs,
                    args.output,
                    workers=args.workers,
                    copy=args.copy,
                    skip_missing=args.skip_missing,
                )
                for name, pairs in list_pairs().items()
            ]
    except (ZssError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _report(outcomes, args.output)


def _report(outcomes: Iterable[Outcome], output: Path) -> int:
    failed = 0
    for outcome in outcomes:
        for problem in outcome.problems:
            print(f"error: {problem}", file=sys.stderr)
        for note in outcome.notes:
            print(f"note: {note}")
        print(outcome.summary)
        failed += len(outcome.problems)
    if failed:
        print(
            f"{failed} problem(s) in all; mend them and run the same command again: what is good "
            "stays prepared",
            file=sys.stderr,
        )
        return 2
    print(f"{output} is ready")
    return 0


def _split_missing(pairs: list[Pair]) -> tuple[list[Pair], str]:
    """Return the pairs whose two files exist, and a phrase about the others, empty if none."""
    phrases, incomplete = [], set()
    for kind in ("image", "mask"):
        absent = {pair: getattr(pair, kind) for pair in pairs if not getattr(pair, kind).exists()}
        if absent:
            names = summarise([path.name for path in absent.values()])
            folder = next(iter(absent.values())).parent
            phrases.append(f"{kind}s missing in {folder}: {names}")
        incomplete |= absent.keys()
    present = [pair for pair in pairs if pair not in incomplete]
    phrase = f"of {len(pairs)} listed, " + " and ".join(phrases) if phrases else ""
    return present, phrase


def _count_notes(split: Split, count: int, subject: str) -> list[str]:
    if count == split.expected_images:
        return []
    return [
        f"{split.name}: {subject} {count} images, the benchmark has {split.expected_images}; "
        "scores cannot be compared with published ones"
    ]


def _surplus_notes(images: Path, listed: set[str]) -> list[str]:
    there = files_by_id(images, IMAGE_SUFFIXES) if images.is_dir() else {}
    surplus = sorted(there.keys() - listed)
    if not surplus:
        return []
    return [
        f"{images} also holds {summarise(surplus)} that the list does not name; they stay part of "
        "the data set until that folder and its annotations are deleted"
    ]


def _run(function: Callable, items: list, workers: int, label: str) -> Iterator:
    """Yield function(item) in order, behind a progress bar."""
    progress = functools.partial(tqdm, total=len(items), desc=label, unit="image")
    if workers <= 1 or len(items) <= 1:
        yield from progress(map(function, items))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from progress(pool.map(function, items, chunksize=8))


def _prepare_pair(job: Job, pair: Pair) -> str:
    """Return ``written``, ``kept``, or the problem."""
    image_out = job.images / f"{pair.image_id}{pair.image.suffix.lower()}"
    mask_out = job.annotations / f"{pair.image_id}.png"
    if _is_current(pair, image_out, mask_out, job.copy):
        return "kept"
    try:
        labels = remap(read_pair(pair.image, pair.mask)[1], job.lut)
    except ZssError as error:
        return str(error)
    except UndefinedLabelError as error:
        return f"{pair.mask}: {error} not defined by the benchmark; correct or fetch the mask again"
    write_mask(mask_out, labels.astype(np.uint8 if job.lut.max() < 256 else np.uint16))
    place = shutil.copyfile if job.copy else os.symlink
    write_atomic(image_out, functools.partial(place, pair.image.resolve()))
    return "written"


def _is_current(pair: Pair, image_out: Path, mask_out: Path, copy: bool) -> bool:
    """Whether both outputs exist, agree in size, and are newer than what they were made from."""
    try:
        sources = max(pair.image.stat().st_mtime, pair.mask.stat().st_mtime)
        if mask_out.stat().st_mtime < sources or image_out.is_symlink() == copy:
            return False
        if copy and image_out.stat().st_size != pair.image.stat().st_size:
            return False
        if not copy and not image_out.samefile(pair.image):
            return False
    except OSError:
        return False
    size = image_size(mask_out)
    return size is not None and size == image_size(image_out)


def _check_record(record: Mapping[str, str], num_classes: int, ignore_label: int) -> str:
    """Return the problem, or an empty string."""
    try:
        read_prepared_pair(record, num_classes, ignore_label)
    except ZssError as error:
        return str(error)
    return ""
