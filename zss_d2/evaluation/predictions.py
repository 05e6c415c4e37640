"""Predicted labels on disk, in the raw ids of the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zss_d2.data.benchmark import available_benchmarks, load_benchmark
from zss_d2.data.files import read_mask, write_mask


def raw_ids(metadata: Any) -> np.ndarray:
    """Raw id of every class (K,), by a data set's metadata.

    They come from ``stuff_dataset_id_to_contiguous_id`` or the benchmark's spec; where there is
    neither, the raw ids are 0..K-1. Of several raw ids of a class the smallest counts.
    """
    mapping = metadata.get("stuff_dataset_id_to_contiguous_id")
    if mapping is None and metadata.get("benchmark") in available_benchmarks():
        mapping = load_benchmark(metadata.benchmark).raw_to_train
    ids = np.arange(len(metadata.stuff_classes))
    for raw, train in sorted((mapping or {}).items(), reverse=True):
        if train < len(ids):
            ids[train] = raw
    return ids


def prediction_file(folder: Path, dataset_name: str, key: str) -> Path:
    """Where the prediction for an image lies in the folder of a run."""
    return folder / "predictions" / dataset_name / f"{key}.png"


def write_prediction(path: Path, labels: np.ndarray, ids: np.ndarray) -> None:
    """Write labels (H, W) as a grey PNG of raw ids, 8 bit if they fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, ids.astype(np.uint8 if ids.max() < 256 else np.uint16)[labels])


def read_prediction(path: Path, ids: np.ndarray) -> np.ndarray:
    """Read what `write_prediction` wrote -> labels (H, W)."""
    raw = read_mask(path)
    table = np.zeros(max(int(ids.max()), int(raw.max())) + 1, np.int64)
    table[ids] = np.arange(len(ids))
    return table[raw]
