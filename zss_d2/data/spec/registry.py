"""Registers data sets with Detectron2; importing registers every benchmark.

The split of a benchmark is the data set ``zss_<benchmark>_<split>``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import log_first_n

from zss_d2.data.files.listing import Location, load_records, subfolder_note
from zss_d2.data.spec.benchmark import Benchmark, Split, available_benchmarks, load_benchmark
from zss_d2.data.spec.locations import dataset_name, mask_encoding, prepared_location
from zss_d2.drawing.colours import class_colours

# Where the files of a registered split lie.
_LOCATE: dict[str, Callable[[], Location]] = {}


def register_all() -> None:
    """Register the splits of every spec in the package."""
    for name in available_benchmarks():
        register_benchmark(load_benchmark(name))


def register_benchmark(benchmark: Benchmark) -> None:
    """Register the splits of ``benchmark``; doing so again replaces the earlier registration."""
    for split in benchmark.splits.values():
        register_split(benchmark, split, functools.partial(prepared_location, benchmark, split))


def register_split(benchmark: Benchmark, split: Split, locate: Callable[[], Location]) -> None:
    """Register one split, whose files ``locate`` finds; again replaces."""
    name = dataset_name(benchmark, split)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, functools.partial(_load, benchmark, split, locate))
    _LOCATE[name] = locate
    _publish_metadata(benchmark, split, locate())


def location_of(name: str) -> Location | None:
    """Return where the files of a registered split lie; None for a data set of others."""
    return _LOCATE[name]() if name in _LOCATE else None


def given_colours() -> dict[str, tuple[int, ...]]:
    """Colours, RGB in 0..255, that registered data sets give their classes; the latest counts."""
    colours = {}
    for name in _LOCATE:
        colours |= MetadataCatalog.get(name).get("colors", {})
    return colours


def _load(
    benchmark: Benchmark, split: Split, locate: Callable[[], Location]
) -> list[dict[str, str]]:
    # The environment may have changed since registration, and with it the folders.
    location = locate()
    _publish_metadata(benchmark, split, location)
    records = load_records(location, dataset_name(benchmark, split))
    if split.expected_images not in (None, len(records)):
        log_first_n(
            logging.WARNING,
            f"{dataset_name(benchmark, split)} holds {len(records)} images, the benchmark "
            f"{split.expected_images}: scores cannot be compared with published ones",
            key="message",
        )
    if note := subfolder_note(location):
        log_first_n(logging.WARNING, note, key="message")
    return records


def _publish_metadata(benchmark: Benchmark, split: Split, location: Location) -> None:
    name = dataset_name(benchmark, split)
    facts = {
        "stuff_classes": list(benchmark.classes),
        "seen_classes": list(benchmark.seen_names),
        "unseen_classes": list(benchmark.unseen_names),
        "thing_classes": list(benchmark.things),
        "colors": dict(benchmark.colors),
        "synonyms": {name: list(words) for name, words in benchmark.synonyms.items()},
        "ignore_label": benchmark.ignore_label,
        "evaluator_type": "sem_seg",
        "benchmark": benchmark.name,
        "pseudo_labels": benchmark.pseudo_labels,
        "image_root": str(location.images),
        "sem_seg_root": str(location.masks),
        "mask_encoding": mask_encoding(benchmark, location),
        "stuff_dataset_id_to_contiguous_id": _ids_of_raw(benchmark),
    }
    if benchmark.colors:
        colours = class_colours(benchmark.classes, benchmark.colors)
        facts["stuff_colors"] = np.round(255 * colours).astype(int).tolist()
    if name in MetadataCatalog.list():
        known = MetadataCatalog.get(name)
        if all(known.get(key) == value for key, value in facts.items()):
            return
        # Metadata refuses changed values, so a changed entry is made anew.
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**facts)


def _ids_of_raw(benchmark: Benchmark) -> dict[int, int]:
    """Map raw ids to train ids, without the ignored ones, as Detectron2 expects it.

    Its evaluator inverts the map, and so the last raw id of a class counts: the smallest.
    """
    downwards = sorted(benchmark.raw_to_train.items(), reverse=True)
    return {raw: train for raw, train in downwards if train < len(benchmark.classes)}


register_all()
