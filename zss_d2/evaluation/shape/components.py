"""Connected components of label maps, all classes at once.

Pixels are joined across their sides (4-connectivity), not across corners, where two classes could
otherwise run through each other.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Joins(NamedTuple):
    """Which neighbouring pixels belong together."""

    right: np.ndarray  # (H, W - 1) bool: a pixel and the one beside it
    down: np.ndarray  # (H - 1, W) bool: a pixel and the one below it

    @classmethod
    def of(cls, labels: np.ndarray) -> Joins:
        """Those of labels (H, W) that are equal."""
        return cls(labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1])

    def both(self, other: Joins) -> Joins:
        """What is joined here and there."""
        return Joins(self.right & other.right, self.down & other.down)


def components(joins: Joins) -> np.ndarray:
    """Component of every pixel -> (H, W) int32, counted from 0.

    OpenCV finds the components of one mask. Here the mask has a point for every pixel and between
    two neighbours another one, which is set where they belong together: 4 points per pixel, however
    many classes there are.
    """
    height, width = len(joins.right), joins.down.shape[1]
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[::2, 1::2] = joins.right
    grid[1::2, ::2] = joins.down
    _, found = cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)
    return found[::2, ::2] - 1


def merged(pieces: np.ndarray, joins: Joins, within: Joins) -> np.ndarray:
    """Component of every piece (P,), counted from 0, where more pixels are joined than in pieces.

    Far fewer pieces than pixels are looked at, so this is cheaper than `components` of ``joins``.

    Args:
        pieces: (H, W), `components` of ``within``, P in all.
        joins: all of ``within`` and more.
    """
    right, down = joins.right & ~within.right, joins.down & ~within.down
    one = np.concatenate([pieces[:, :-1][right], pieces[:-1][down]])
    other = np.concatenate([pieces[:, 1:][right], pieces[1:][down]])
    shape = 2 * (int(pieces.max()) + 1,)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=shape)
    return connected_components(graph, directed=False)[1]
