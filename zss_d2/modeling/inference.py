"""Whole-image and sliding-window inference as functions of a score function."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

ScoreFunction = Callable[[Tensor], Tensor]


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Starts of windows of ``crop`` px that cover ``size`` px; the last one ends at the border."""
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


def slide(score: ScoreFunction, image: Tensor, crop: int, stride: int) -> Tensor:
    """Average the scores of overlapping windows.

    Args:
        score: (1, 3, h, w) -> (1, K, h, w).
        image: (1, 3, H, W).
        crop: window side, px; a smaller image is one window.
        stride: step, px.

    Returns:
        (1, K, H, W), each pixel the mean over the windows that hold it.
    """
    height, width = image.shape[-2:]
    total = count = None
    for top in window_starts(height, crop, stride):
        for left in window_starts(width, crop, stride):
            view = (..., slice(top, top + crop), slice(left, left + crop))
            scores = score(image[view])
            if total is None:
                total = scores.new_zeros(1, scores.shape[1], height, width)
                count = scores.new_zeros(1, 1, height, width)
            total[view] += scores
            count[view] += 1
    return total / count
