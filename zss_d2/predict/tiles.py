"""Large images tile by tile: memory is bounded by the tiles, not by the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from zss_d2.modeling.inference.windows import Piece, Windows, window_starts

# Numbers (float32) that overlapping rows of tiles may hold; wider images are done in bands.
SHARED_SCORES = 1 << 26


class TileSource(Protocol):
    """A large image, of which parts are read."""

    size: tuple[int, int]
    """Height and width, px."""

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Pixels (h, w, 3) uint8, RGB."""

    def valid(self, rows: slice, columns: slice) -> np.ndarray | None:
        """Where there is data: (h, w) bool, None for everywhere."""


class TileLabels(NamedTuple):
    """Labels of a part of an image."""

    rows: slice
    columns: slice
    labels: np.ndarray  # (h, w), ids of Words
    scores: np.ndarray  # (h, w) float32


@dataclass(frozen=True)
class ArraySource:
    """An image (H, W, 3) in memory."""

    image: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[:2]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        return self.image[rows, columns]

    def valid(self, rows: slice, columns: slice) -> None:
        return None


def score_tiles(
    source: TileSource,
    score: Callable[[Iterable[np.ndarray]], Iterator[Tensor]],
    num_words: int,
    side: int,
    overlap: float,
) -> Iterator[Piece]:
    """Scores of a large image, blended where tiles overlap, in parts that tile it.

    Args:
        score: tiles (h, w, 3) -> scores (K, h, w) of each, in order.
        num_words: K.
        side: of a tile, px of the image.
        overlap: of neighbouring tiles, as a share of their side.
    """
    stride = max(1, side - round(side * overlap))
    height, width = source.size
    shared = num_words * (side - stride)
    for first, stop, kept in bands(width, side, stride, SHARED_SCORES // max(1, shared)):
        grid = Windows((height, stop - first), side, stride, blend=True)
        tiles = (
            source.read(
                slice(top, min(top + side, height)),
                slice(first + left, min(first + left + side, stop)),
            )
            for top, left in product(grid.tops, grid.lefts)
        )
        for rows, columns, scores in grid.average(score(tiles)):
            start, end = first + columns.start, first + columns.stop
            columns = slice(max(start, kept.start), min(end, kept.stop))
            if columns.start < columns.stop:
                yield rows, columns, scores[..., columns.start - start : columns.stop - start]


def bands(width: int, side: int, stride: int, most: int) -> Iterator[tuple[int, int, slice]]:
    """Vertical bands that are done one after another, and the tiles that each of them needs.

    Tiles that reach into two bands are computed for both, so that no pixel depends on the bands.

    Args:
        width: of the image, px.
        side, stride: of the tiles, px.
        most: px that a band may be wide; at least one step.

    Returns:
        where the tiles of a band start and end, and its own columns.
    """
    starts = window_starts(width, side, stride)
    step = width if width <= most else max(stride, most - most % stride)
    for left in range(0, width, step):
        kept = slice(left, min(left + step, width))
        needed = [x for x in starts if x < kept.stop and x + side > kept.start]
        yield needed[0], min(needed[-1] + side, width), kept
