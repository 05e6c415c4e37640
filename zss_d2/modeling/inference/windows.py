"""Windows that cover an image: cut out of it, and averaged where they overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from zss_d2.utils.transfer import sent

# Where a piece of a map lies (rows, columns) and its scores (K, rows, columns).
Piece = tuple[slice, slice, Tensor]


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Starts of windows of ``crop`` px that cover ``size`` px; the last one ends at the border."""
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


@dataclass(frozen=True)
class Windows:
    """Square windows of one size over an image, row by row; a smaller image is one window.

    Args:
        size: height and width of the image, px.
        crop: side of a window, px.
        stride: step, px.
        blend: weigh a window less toward its borders, so that no seam shows; else all the same.
    """

    size: tuple[int, int]
    crop: int
    stride: int
    blend: bool = False

    @property
    def tops(self) -> list[int]:
        return window_starts(self.size[0], self.crop, self.stride)

    @property
    def lefts(self) -> list[int]:
        return window_starts(self.size[1], self.crop, self.stride)

    @property
    def number(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of every window, px."""
        return min(self.crop, self.size[0]), min(self.crop, self.size[1])

    def cut(self, image: Tensor) -> Iterator[Tensor]:
        """The windows (3, h, w) of an image (3, H, W), as views."""
        for top, left in product(self.tops, self.lefts):
            yield image[:, top : top + self.crop, left : left + self.crop]

    def average(self, scores: Iterator[Tensor]) -> Iterator[Piece]:
        """Scores of the image, each pixel the (weighted) mean over the windows that hold it.

        A piece is given as soon as no later window reaches it. Held at a time are a window and what
        one row of windows shares with the next.

        Args:
            scores: (K, h, w) of the windows in the order of `cut`.

        Returns:
            pieces that tile the image.
        """
        (height, width), tops, lefts = self.size, self.tops, self.lefts
        if len(tops) == len(lefts) == 1:
            yield slice(0, height), slice(0, width), next(scores)
            return
        ramp = self.crop - self.stride if self.blend else 0
        row_weights, column_weights = (
            _ramped(min(self.crop, side), ramp) for side in (height, width)
        )
        row_counts = _coverage(tops, row_weights, height)
        column_counts = _coverage(lefts, column_weights, width)
        above = None  # sums (K, rows shared with the windows above, W)
        for top, next_top in pairwise([*tops, height]):
            rows = next_top - top
            below = before = None  # before: sums (K, h, columns shared with the window before)
            for left, next_left in pairwise([*lefts, width]):
                columns = next_left - left
                # A copy, as it is added to, and so that no batch of windows is kept alive.
                total = next(scores).clone()
                if self.blend:
                    weights = row_weights[:, None] * column_weights
                    total *= sent(weights.to(total.dtype), total.device)
                known = 0
                if before is not None:
                    known = before.shape[2]
                    total[..., :known] += before
                if above is not None:
                    total[:, : above.shape[1], known:] += above[
                        ..., left + known : left + total.shape[2]
                    ]
                if rows < total.shape[1]:
                    if below is None:
                        below = total.new_empty(len(total), total.shape[1] - rows, width)
                    below[..., left:next_left] = total[:, rows:, :columns]
                before = total[..., columns:]
                row_counts = sent(row_counts, total.device)
                column_counts = sent(column_counts, total.device)
                count = row_counts[top:next_top, None] * column_counts[left:next_left]
                mean = total[:, :rows, :columns] / count
                yield slice(top, next_top), slice(left, next_left), mean
            above = below


def _ramped(crop: int, ramp: int) -> Tensor:
    """Weights of the positions in a window (crop,): 1, falling off over ``ramp`` px at each end."""
    position = torch.arange(crop, dtype=torch.float32) + 0.5
    distance = torch.minimum(position, crop - position)
    return (distance / ramp).clamp(max=1) if ramp else torch.ones(crop)


def _coverage(starts: list[int], weights: Tensor, size: int) -> Tensor:
    """Sum of the weights of the windows that hold each of ``size`` positions."""
    total = torch.zeros(size)
    for start in starts:
        total[start : start + len(weights)] += weights
    return total
