"""Verifies a split that is ready for training: pairs, sizes, values, counts, list membership."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from zss_d2.data.benchmark import Benchmark, Split, ids_digest
from zss_d2.data.convert import Pair
from zss_d2.data.files import mask_storage, read_pair, read_prepared_pair
from zss_d2.data.labels import UndefinedLabelError, histogram, remap, remap_histogram
from zss_d2.data.outcome import Outcome, count_notes, run_parallel
from zss_d2.data.registry import (
    Location,
    dataset_name,
    load_records,
    prepared_location,
    summarise,
)
from zss_d2.errors import ZssError

_STORAGE_NOTES = {
    "palette": "palette PNGs: their palette indices are the class ids, whatever the colours",
    "16 bit": "16-bit PNGs: read exactly here, but Detectron2's own mapper clamps them to 255",
}


@dataclass(frozen=True)
class Finding:
    """What one record holds: a problem or nothing, pixels per class and ignored, and storage."""

    problem: str = ""
    pixels: np.ndarray | None = None
    storage: str = ""


def check_split(
    benchmark: Benchmark, split: Split, root: Path, *, workers: int = 1, any_count: bool = False
) -> Outcome:
    """`check_location` of a prepared tree."""
    location = prepared_location(benchmark, split, root)
    return check_location(benchmark, split, location, workers=workers, any_count=any_count)


def check_location(
    benchmark: Benchmark,
    split: Split,
    location: Location,
    *,
    workers: int = 1,
    any_count: bool = False,
    listed: Collection[str] | None = None,
    originals: Collection[Pair] = (),
    lut: np.ndarray | None = None,
    raw: bool = False,
) -> Outcome:
    """Verify a split; the table of the outcome shows the pixels and images of every class.

    Args:
        any_count: turns a wrong number of images, or another id list, into a note.
        listed: ids that the split must consist of, where known.
        originals: pairs whose raw histograms, through ``lut``, must be those of the split.
        lut: raw values -> train ids, for ``originals`` and for ``raw``.
        raw: the masks of the location themselves hold raw values.
    """
    try:
        records = load_records(location, dataset_name(benchmark, split))
    except ZssError as error:
        return Outcome(f"{split.name}: not usable", (str(error),))
    check = functools.partial(
        _check_record,
        num_classes=len(benchmark.classes),
        ignore_label=benchmark.ignore_label,
        lut=lut,
        raw=raw,
    )
    pair_of = {pair.image_id: pair for pair in originals}
    items = [(record, pair_of.get(record["image_id"])) for record in records]
    findings = list(run_parallel(check, items, workers, split.name))
    problems = [finding.problem for finding in findings if finding.problem]
    ids = {record["image_id"] for record in records}
    doubts = count_notes(split, len(records), f"{location.images} holds")
    doubts += _membership_doubts(split, ids, listed)
    if not any_count:
        accept = "name your lists or pass --skip-missing to accept that"
        problems += [f"{doubt}; {accept}" for doubt in doubts]
    pixels = np.array([f.pixels for f in findings if f.pixels is not None])
    return Outcome(
        f"{split.name}: {len(records)} images checked, {len(problems)} problem(s)",
        tuple(problems),
        (*(doubts if any_count else ()), *_storage_notes(split, findings, records)),
        class_table(benchmark, pixels) if len(pixels) else "",
    )


def class_table(benchmark: Benchmark, pixels: np.ndarray) -> str:
    """Lay out the classes that (images, K + 1) pixel counts, the last one ignored, speak of."""
    totals, images = pixels.sum(axis=0), (pixels > 0).sum(axis=0)
    share = totals / max(1, totals.sum()) * 100
    unseen = set(benchmark.unseen_ids)
    rows = [
        (i, name, "unseen" if i in unseen else "seen", images[i], totals[i], f"{share[i]:.3f}")
        for i, name in enumerate(benchmark.classes)
        if totals[i]
    ]
    rows.append(
        (benchmark.ignore_label, "(ignored)", "", images[-1], totals[-1], f"{share[-1]:.3f}")
    )
    table = tabulate(
        rows,
        headers=("id", "class", "", "images", "pixels", "%"),
        tablefmt="github",
        disable_numparse=True,
        colalign=("right", "left", "left", "right", "right", "right"),
    )
    absent = [name for i, name in enumerate(benchmark.classes) if not totals[i]]
    return f"{table}\nwithout a pixel: {summarise(absent)}" if absent else table


def _membership_doubts(split: Split, ids: set[str], listed: Collection[str] | None) -> list[str]:
    doubts = []
    if listed is not None:
        for names, phrase in (
            (sorted(ids - set(listed)), "are not on the list"),
            (sorted(set(listed) - ids), "of the list are not prepared"),
        ):
            if names:
                doubts.append(f"{split.name}: {summarise(names)} {phrase}")
    right_count = split.expected_images in (None, len(ids))
    if split.ids_sha256 and right_count and ids_digest(ids) != split.ids_sha256:
        doubts.append(
            f"{split.name}: the {len(ids)} ids are not those of the published list; "
            "scores cannot be compared"
        )
    return doubts


def _storage_notes(split: Split, findings: list[Finding], records: list[dict]) -> list[str]:
    counts = Counter(finding.storage for finding in findings if finding.storage)
    first = {f.storage: r["image_id"] for f, r in zip(findings[::-1], records[::-1], strict=True)}
    return [
        f"{split.name}: {count} masks, such as {first[storage]}, are {_STORAGE_NOTES[storage]}"
        for storage, count in sorted(counts.items())
    ]


def _check_record(
    item: tuple[Mapping[str, str], Pair | None],
    num_classes: int,
    ignore_label: int,
    lut: np.ndarray | None,
    raw: bool,
) -> Finding:
    record, original = item
    try:
        if raw:
            labels = remap(read_pair(record["file_name"], record["sem_seg_file_name"])[1], lut)
        else:
            _, labels = read_prepared_pair(record, num_classes, ignore_label)
        pixels = histogram(labels, num_classes, ignore_label)
        if original is not None:
            raw_counts = np.bincount(original.read(original.mask).ravel())
            expected = remap_histogram(raw_counts, lut, num_classes, ignore_label)
            if not np.array_equal(pixels, expected):
                return Finding(
                    f"{record['sem_seg_file_name']}: the pixels per class differ from those of "
                    f"{original.mask}; delete the file and prepare the data set again"
                )
    except ZssError as error:
        return Finding(str(error))
    except UndefinedLabelError as error:
        path = original.mask if original else record["sem_seg_file_name"]
        return Finding(f"{path}: {error} not in raw_to_train; correct the mask or the map")
    return Finding("", pixels, mask_storage(record["sem_seg_file_name"]))
