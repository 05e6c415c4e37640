"""Verifies a split that is ready for training: pairs, sizes, values, counts, list membership."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from zss_d2.data.files.encoding import MaskEncoding
from zss_d2.data.files.images import (
    WIDE_IMAGES,
    image_storage,
    is_dark,
    mask_storage,
)
from zss_d2.data.files.listing import Location, load_records, subfolder_note, summarise
from zss_d2.data.labels import UndefinedLabelError, histogram, remap
from zss_d2.data.prepare.convert import FETCHED_REMEDY, Pair
from zss_d2.data.prepare.outcome import Outcome, count_notes, run_parallel
from zss_d2.data.spec.benchmark import Benchmark, Split, ids_digest
from zss_d2.data.spec.locations import dataset_name, mask_encoding, prepared_location
from zss_d2.errors import ZssError

_STORAGE_NOTES = {
    "palette": "masks, such as {}, have a palette: the palette indices are the class ids, whatever "
    "the colours",
    "16 bit": "masks, such as {}, hold 16 bits: read exactly here, but Detectron2's own mapper "
    "clamps them to 255",
    "16 bit grey image": "images, such as {}, are 16-bit grey: 0..65535 become 0..255 here, while "
    "Detectron2's own mapper makes them white",
    "dark image": "images, such as {}, are 16-bit and nearly black: if they hold fewer bits, use "
    "copies that are stretched to the full range",
    "turned image": "images, such as {}, are turned by their EXIF data: their masks must have been "
    "drawn on the upright image",
    "transparent image": "images, such as {}, have transparency, which is dropped: the colours "
    "below it are what the model sees",
}


@dataclass(frozen=True)
class Finding:
    """What one record holds: a problem or nothing, pixels per class and ignored, and storage."""

    problem: str = ""
    pixels: np.ndarray | None = None
    storage: tuple[str, ...] = ()


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
    trained_ids: Collection[int] | None = None,
) -> Outcome:
    """Verify a split; the table of the outcome shows the pixels and images of every class.

    Args:
        any_count: turns a wrong number of images, or another id list, into a note.
        listed: ids that the split must consist of, where known.
        originals: pairs whose raw histograms, through ``lut``, must be those of the split.
        lut: raw values -> train ids, for ``originals``.
        trained_ids: the classes whose labels training is to see, for a training set.
    """
    try:
        records = load_records(location, dataset_name(benchmark, split))
    except ZssError as error:
        return Outcome(f"{split.name}: not usable", (str(error),))
    check = functools.partial(
        _check_record,
        encoding=mask_encoding(benchmark, location),
        lut=lut,
    )
    pair_of = {pair.image_id: pair for pair in originals}
    items = [(record, pair_of.get(record["image_id"])) for record in records]
    findings = list(run_parallel(check, items, workers, split.name))
    problems = [finding.problem for finding in findings if finding.problem]
    ids = {record["image_id"] for record in records}
    warnings = count_notes(split, len(records), f"{location.images} holds")
    warnings += _membership_warnings(split, ids, listed)
    if not any_count:
        accept = "name your lists or pass --skip-missing to accept that"
        problems += [f"{warning}; {accept}" for warning in warnings]
    read = {
        record["image_id"]: finding.pixels
        for record, finding in zip(records, findings, strict=True)
        if finding.pixels is not None
    }
    pixels = np.array(list(read.values()))
    shown = (*(warnings if any_count else ()), subfolder_note(location))
    lacking, gaps = label_gaps(benchmark, split.name, read, trained_ids)
    problems += lacking
    return Outcome(
        f"{split.name}: {len(records)} images checked, {len(problems)} problem(s)",
        tuple(problems),
        tuple(filter(None, (*shown, *gaps, *_storage_notes(split, findings, records)))),
        class_table(benchmark, pixels) if len(pixels) else "",
    )


def label_gaps(
    benchmark: Benchmark,
    split: str,
    pixels: Mapping[str, np.ndarray],
    trained_ids: Collection[int] | None = None,
) -> tuple[list[str], list[str]]:
    """Say what is not labelled: problems, where nothing usable is, and notes.

    Args:
        pixels: image id -> (K + 1,) pixels per class, the last one ignored.
        trained_ids: as in `check_location`.
    """
    labelled = {image_id: counts[:-1] for image_id, counts in pixels.items()}
    void = [image_id for image_id, counts in labelled.items() if not counts.any()]
    if not pixels:
        return [], []
    if len(void) == len(pixels):
        problem = f"{split}: no pixel of {len(void)} images has a label, all are void"
        return [f"{problem} ({benchmark.ignore_label}); correct the masks or raw_to_train"], []
    notes = [f"{split}: {summarise(void)} have no labelled pixel"] if void else []
    if trained_ids is None:
        return [], notes
    ids = list(trained_ids)
    blind = [i for i, counts in labelled.items() if counts.any() and not counts[ids].any()]
    if len(void) + len(blind) == len(pixels):
        unseen = ", ".join(benchmark.unseen_names)
        problem = f"{split}: only unseen classes ({unseen}) are labelled, which training never sees"
        return [f"{problem}; add images of seen classes, or correct the masks"], notes
    if blind:
        notes.append(
            f"{split}: {summarise(blind)} show unseen classes only, so nothing of them is trained"
        )
    totals = sum(labelled.values())
    if absent := [benchmark.classes[i] for i in ids if not totals[i]]:
        notes.append(f"{split}: {summarise(absent)} are to be trained but have no pixel")
    return [], notes


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


def _membership_warnings(split: Split, ids: set[str], listed: Collection[str] | None) -> list[str]:
    warnings = []
    if listed is not None:
        for names, phrase in (
            (sorted(ids - set(listed)), "are not on the list"),
            (sorted(set(listed) - ids), "of the list are not prepared"),
        ):
            if names:
                warnings.append(f"{split.name}: {summarise(names)} {phrase}")
    right_count = split.expected_images in (None, len(ids))
    if split.ids_sha256 and right_count and ids_digest(ids) != split.ids_sha256:
        warnings.append(
            f"{split.name}: the {len(ids)} ids are not those of the published list; "
            "scores cannot be compared"
        )
    return warnings


def _storage_notes(split: Split, findings: list[Finding], records: list[dict]) -> list[str]:
    ids: dict[str, list[str]] = {}
    for finding, record in zip(findings, records, strict=True):
        for storage in finding.storage:
            ids.setdefault(storage, []).append(record["image_id"])
    return [
        f"{split.name}: {len(ids[storage])} {note.format(ids[storage][0])}"
        for storage, note in _STORAGE_NOTES.items()
        if storage in ids
    ]


def _check_record(
    item: tuple[Mapping[str, str], Pair | None],
    encoding: MaskEncoding,
    lut: np.ndarray | None,
) -> Finding:
    record, original = item
    try:
        image, labels = encoding.read_pair(record)
        pixels = histogram(labels, encoding.num_classes, encoding.ignore_label)
        if original is not None:
            expected = remap(original.read(original.mask), lut)
            expected = histogram(expected, encoding.num_classes, encoding.ignore_label)
            if not np.array_equal(pixels, expected):
                return Finding(
                    f"{record['sem_seg_file_name']}: the pixels per class differ from those of "
                    f"{original.mask}; {encoding.remedy}"
                )
    except ZssError as error:
        return Finding(str(error))
    except UndefinedLabelError as error:
        return Finding(f"{original.mask}: {error} not in raw_to_train; {FETCHED_REMEDY}")
    return Finding("", pixels, _storage(record, image))


def _storage(record: Mapping[str, str], image: np.ndarray) -> tuple[str, ...]:
    """Return the keys of the notes that a readable pair deserves."""
    kinds = image_storage(record["file_name"])
    if is_dark(kinds, image):
        kinds = kinds - WIDE_IMAGES | {"dark"}
    mask = mask_storage(record["sem_seg_file_name"])
    return tuple(filter(None, (mask, *(f"{kind} image" for kind in kinds))))
