"""Label maths on integer arrays: no files, no state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MAX_LABEL = 65535


class UndefinedLabelError(ValueError):
    """A mask holds values without a meaning; ``counts`` is {value: number of pixels}."""

    def __init__(self, counts: dict[int, int]):
        self.counts = counts
        super().__init__(
            ", ".join(f"value {value} ({n} pixels)" for value, n in sorted(counts.items()))
        )

    def __reduce__(self) -> tuple[type, tuple[dict[int, int]]]:
        return type(self), (self.counts,)


def build_lut(raw_to_train: Mapping[int, int]) -> np.ndarray:
    """Return the table raw mask value -> train id, int32, -1 where nothing is defined.

    256 entries where every raw value fits 8 bits, else 65536.
    """
    table = np.full(256 if max(raw_to_train) < 256 else MAX_LABEL + 1, -1, np.int32)
    for raw, train in raw_to_train.items():
        table[raw] = train
    return table


def remap(raw: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Replace each raw value by its train id.

    Args:
        raw: (H, W) integer array.
        lut: (N,) integer table, -1 where a raw value has no meaning.

    Returns:
        (H, W) array of the type of ``lut``.

    Raises:
        UndefinedLabelError: a raw value is outside the table or maps to -1.
    """
    labels = np.take(lut, raw, mode="clip")
    bad = labels < 0
    if not np.can_cast(raw.dtype, np.min_scalar_type(len(lut) - 1)):
        bad |= (raw < 0) | (raw >= len(lut))
    _reject(raw, bad)
    return labels


def check_labels(labels: np.ndarray, num_classes: int, ignore_label: int) -> None:
    """Raise UndefinedLabelError unless all values are in 0..num_classes-1 or ``ignore_label``."""
    _reject(labels, ((labels < 0) | (labels >= num_classes)) & (labels != ignore_label))


def hide_unseen(labels: np.ndarray, unseen_ids: Sequence[int], ignore_label: int) -> np.ndarray:
    """Return a copy of ``labels`` in which pixels of unseen classes are ``ignore_label``.

    Args:
        labels: (H, W) ids of any integer type, 0..65535.

    Returns:
        (H, W) of that type, or of a wider one where the ignore label needs it: a mask of 8 bits
        may belong to a data set whose void is 65535.
    """
    dtype = np.promote_types(labels.dtype, np.min_scalar_type(ignore_label))
    table = np.arange(256 if labels.dtype == np.uint8 else 65536).astype(dtype)
    table[list(unseen_ids)] = ignore_label
    return table[labels]


def histogram(labels: np.ndarray, num_classes: int, ignore_label: int) -> np.ndarray:
    """Count the pixels of valid ``labels`` (H, W): (K + 1,) int64, the last one ignored."""
    counts = np.bincount(labels.ravel(), minlength=ignore_label + 1)
    return np.append(counts[:num_classes], counts[ignore_label])


def _reject(values: np.ndarray, bad: np.ndarray) -> None:
    if bad.any():
        found, counts = np.unique(values[bad], return_counts=True)
        raise UndefinedLabelError(dict(zip(found.tolist(), counts.tolist(), strict=True)))
