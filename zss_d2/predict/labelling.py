"""From the best word of every pixel to label ids."""

from __future__ import annotations

import numpy as np

from zss_d2.predict.words import Words


def label_ids(
    best: np.ndarray, scores: np.ndarray, words: Words, valid: np.ndarray | None = None
) -> np.ndarray:
    """Label ids of `Words` (H, W).

    Args:
        best: (H, W) integers, index into ``words.vocabulary`` of the best word of every pixel.
        scores: (H, W), its score.
        valid: (H, W) bool, False where a raster image holds no data; None: everywhere True.
    """
    labels = words.label_ids[best]
    if words.unknown_below:
        labels[scores < words.thresholds[best]] = words.unknown_id
    if valid is not None:
        labels[~valid] = words.nodata_id
    return labels
