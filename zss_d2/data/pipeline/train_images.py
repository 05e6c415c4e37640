"""Which images training sees: all of them, or only those without a pixel of an unseen class."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from tqdm.contrib.concurrent import thread_map

from zss_d2.data.files.encoding import MaskEncoding, read_labels
from zss_d2.data.files.images import read_mask
from zss_d2.data.files.listing import summarise
from zss_d2.data.spec.locations import datasets_root
from zss_d2.errors import ZssError
from zss_d2.utils.writing import write_atomic

logger = logging.getLogger(__name__)


def without_unseen(records: Sequence[dict], workers: int = 1) -> list[dict]:
    """Keep the records whose mask shows no unseen class.

    Every mask is read once; what it holds is remembered below DETECTRON2_DATASETS until it changes.

    Raises ZssError if a mask is unreadable or nothing is left.
    """
    kept = []
    for name, own in _by_dataset(records).items():
        metadata = MetadataCatalog.get(name)
        unseen_ids = {metadata.stuff_classes.index(word) for word in metadata.unseen_classes}
        unseen = MaskEncoding.of(metadata).values_of(unseen_ids)
        present = classes_of(own, datasets_root() / "zss" / "classes" / f"{name}.json", workers)
        clean = [r for r in own if unseen.isdisjoint(present[r["image_id"]])]
        logger.info("%s: %d of %d images show no unseen class", name, len(clean), len(own))
        kept += clean
    if not kept:
        names = ", ".join(sorted({record["dataset_name"] for record in records}))
        raise ZssError(
            f"{names}: every image shows an unseen class; set ZERO_SHOT.TRAIN_IMAGES all"
        )
    return kept


def require_labels(records: Sequence[dict], *, supervised: bool = False) -> None:
    """Raise ZssError for a data set in which no pixel has a label that training may see.

    Masks are read up to the first one with such a label, which is nearly always the first.

    Args:
        supervised: whether training may see the labels of unseen classes.
    """
    for name, own in _by_dataset(records).items():
        metadata = MetadataCatalog.get(name)
        names = metadata.stuff_classes if supervised else metadata.seen_classes
        ids = [metadata.stuff_classes.index(word) for word in names]
        masks = (read_labels(record["sem_seg_file_name"], metadata) for record in own)
        if not any(np.isin(labels, ids).any() for labels in masks):
            raise ZssError(
                f"{name}: no pixel of its {len(own)} training images has the label of a class that "
                f"is trained ({summarise(list(names))}); correct the masks or raw_to_train, or "
                "choose other images"
            )


def _by_dataset(records: Sequence[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(record["dataset_name"], []).append(record)
    return groups


def classes_of(records: Sequence[dict], cache: Path, workers: int = 1) -> dict[str, list[int]]:
    """Return {image id: values of its mask}; ``cache`` holds those of unchanged files."""
    known = _read_cache(cache)
    paths = {record["image_id"]: Path(record["sem_seg_file_name"]) for record in records}
    states = {image_id: _state(path) for image_id, path in paths.items()}
    stale = [i for i, state in states.items() if known.get(i, {}).get("state") != state]
    if stale:
        logger.info("reading %d masks for the classes they show", len(stale))
        values = thread_map(
            lambda image_id: np.unique(read_mask(paths[image_id])).tolist(),
            stale,
            max_workers=max(1, workers),
            desc=cache.stem,
            unit="mask",
            disable=None,
        )
        fresh = zip(stale, values, strict=True)
        known |= {i: {"state": states[i], "values": value} for i, value in fresh}
        _write_cache(cache, known)
    return {image_id: known[image_id]["values"] for image_id in paths}


def _state(path: Path) -> list[int | str]:
    """Return what changes when a mask does: its place, time and size."""
    try:
        stat = path.stat()
    except OSError:
        raise ZssError(f"{path}: the mask is missing; prepare the data set again") from None
    return [str(path.absolute()), stat.st_mtime_ns, stat.st_size]


def _read_cache(path: Path) -> dict[str, dict]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(path: Path, known: dict[str, dict]) -> None:
    try:
        write_atomic(path, lambda temporary: temporary.write_text(json.dumps(known)))
    except ZssError as error:
        logger.warning("the classes of the masks are not remembered: %s", error)
