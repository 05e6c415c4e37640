"""What a collection keeps of an image: areas, and masks as runs of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zss_d2.predict.formats.base import Record
    from zss_d2.predict.result import Prediction
    from zss_d2.predict.words import Words

# Columns of labels that are looked at together, so that a large image needs no second copy.
_COLUMNS = 256


def annotations(prediction: Prediction) -> list[dict[str, Any]]:
    """A COCO annotation per class that occurs, in the order of the label ids.

    ``category_id`` is the label id, ``segmentation`` the mask as compressed RLE, ``bbox`` [x, y, w,
    h] and ``area`` are in px, ``score`` is the mean over the pixels of the class, 0..1. Background,
    unknown pixels and those without data have none.
    """
    words, labels = prediction.words, prediction.labels
    counts = np.bincount(labels.ravel(), minlength=words.unknown_id + 1)
    sums = np.bincount(labels.ravel(), weights=prediction.scores.ravel(), minlength=len(counts))
    return annotations_of(labels, counts, sums, words)


def annotations_of(
    labels: np.ndarray, counts: np.ndarray, sums: np.ndarray, words: Words
) -> list[dict[str, Any]]:
    """`annotations` of labels (H, W), or of what is read like them, some columns at a time.

    Args:
        counts: pixels of every label id: (unknown id + 1,).
        sums: of their scores, per label id.
    """
    from pycocotools import mask

    runs = _runs_by_label(labels)
    found = []
    for label in words.label_ids[: len(words.classes)].tolist():
        if not counts[label]:
            continue
        plain = {"size": list(labels.shape), "counts": _alternating(*runs[label], labels.size)}
        rle = mask.frPyObjects(plain, *labels.shape)
        found.append(
            {
                "category_id": label,
                "segmentation": {"size": plain["size"], "counts": rle["counts"].decode("ascii")},
                "area": int(counts[label]),
                "bbox": [int(x) for x in mask.toBbox(rle)],
                "iscrowd": 0,
                "score": round(float(sums[label] / counts[label]), 6),
            }
        )
    return found


def record(prediction: Prediction, file_name: str, masks: bool) -> Record:
    """What files about a collection are made of, ready for JSON.

    Args:
        file_name: the path of the image in its tree.
        masks: with ``annotations``, as `annotations` returns them.

    Returns:
        A dict with ``file_name``, ``width`` and ``height`` in px, and ``area``: the share of the
        image, 0..1, by class name, as in `Prediction.area`.
    """
    height, width = prediction.labels.shape
    kept = {"annotations": annotations(prediction)} if masks else {}
    return {
        "file_name": file_name,
        "width": width,
        "height": height,
        "area": prediction.area,
        **kept,
    }


def decoded(annotation: dict[str, Any]) -> np.ndarray:
    """The mask of an annotation, (H, W) uint8, 0 or 1."""
    from pycocotools import mask

    return mask.decode(annotation["segmentation"])


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of 0 and 1 of a mask (h, w), row by row, in turn; 0 comes first."""
    flat = mask.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(ends, prepend=0, append=flat.size)
    return np.concatenate([[0], lengths]) if flat[0] else lengths


def _runs_by_label(labels: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Starts and ends of the runs of every label, in pixels down the columns, as COCO has them."""
    values, starts = zip(*_column_runs(labels), strict=True)
    values, starts = np.concatenate(values), np.concatenate(starts)
    ends = np.append(starts[1:], labels.size)
    order = np.argsort(values, kind="stable")
    present, first = np.unique(values[order], return_index=True)
    return {
        int(label): (starts[own], ends[own])
        for label, own in zip(present, np.split(order, first[1:]), strict=True)
    }


def _column_runs(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values and starts of the runs down the columns, some columns at a time."""
    height, width = labels.shape
    last = None
    for left in range(0, width, _COLUMNS):
        flat = labels[:, left : left + _COLUMNS].ravel(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if flat[0] != last:
            changes = np.concatenate([[0], changes])
        last = flat[-1]
        yield flat[changes], changes + left * height


def _alternating(starts: np.ndarray, ends: np.ndarray, size: int) -> list[int]:
    """Lengths of the runs outside and inside, in turn."""
    edges = np.stack([starts, ends], axis=1).ravel()
    lengths = np.diff(edges, prepend=0, append=size)
    return (lengths if lengths[-1] else lengths[:-1]).tolist()
