"""Predicted labels on disk, in the raw ids of the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zss_d2.data.files.images import read_mask
from zss_d2.errors import ZssError
from zss_d2.utils.writing import write_mask


def raw_ids(metadata: Any) -> np.ndarray:
    """Raw id of every class (K,), by a data set's metadata.

    They come from ``stuff_dataset_id_to_contiguous_id``, which every data set registered here has;
    a class without one keeps its own id. Of several raw ids of a class the smallest counts. Those
    of a view are the raw ids of its base.

    Raises ZssError if two classes share a raw id.
    """
    ids = np.arange(len(metadata.stuff_classes))
    mapping = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    for raw, train in sorted(mapping.items(), reverse=True):
        if train < len(ids):
            ids[train] = raw
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise ZssError(
            f"{metadata.name}: several classes have the raw id {values[counts > 1][0]}; give each "
            "one of its own in stuff_dataset_id_to_contiguous_id"
        )
    return ids


def prediction_file(folder: Path, dataset_name: str, key: str) -> Path:
    """Where the prediction for an image lies in the folder of a run."""
    return folder / "predictions" / dataset_name / f"{key}.png"


def write_prediction(path: Path, labels: np.ndarray, ids: np.ndarray) -> None:
    """Write labels (H, W) as a grey PNG of raw ids, 8 bit if they fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, ids.astype(np.uint8 if ids.max() < 256 else np.uint16)[labels])


def read_prediction(path: Path, ids: np.ndarray) -> np.ndarray:
    """Read what `write_prediction` wrote -> labels (H, W).

    Raises ZssError for a value that is no raw id: the prediction is that of other classes.
    """
    raw = read_mask(path)
    table = np.full(max(int(ids.max()), int(raw.max())) + 1, -1, np.int64)
    table[ids] = np.arange(len(ids))
    labels = table[raw]
    if (labels < 0).any():
        raise ZssError(
            f"{path}: value {raw[labels < 0][0]} is the id of no class of the data set; evaluate "
            "again with TEST.PREDICTIONS png"
        )
    return labels
