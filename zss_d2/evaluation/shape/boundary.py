"""Boundary IoU (Cheng et al. 2021, arXiv 2103.16562) of semantic label maps.

There it compares two masks by those of their pixels that lie within d of their contours. Here every
class of a map is such a mask: a pixel belongs to the boundary of its class if the square of side
2 d + 1 around it holds another class or reaches over the edge of the image. That is what eroding
each class's mask d times by 3 x 3 leaves over, as the paper's code does, but for all classes at
once.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

# d as a share of the image's diagonal, the paper's default.
DILATION_RATIO = 0.02


def boundary_distance(height: int, width: int, ratio: float = DILATION_RATIO) -> int:
    """d in pixels, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary(labels: np.ndarray, void: int, distance: int) -> np.ndarray:
    """The pixels within ``distance`` of another class or of the image's edge -> bool (H, W).

    Void makes no contour: between void and a class it is not known whether there is one.

    Args:
        labels: (H, W), classes below ``void`` and ``void`` itself, at most 65533.
        void: label of the pixels without a class; they are in no boundary.
        distance: d, in pixels.
    """
    depth = np.uint8 if void < 254 else np.uint16
    # No label is that of what lies outside, nor 0 or the largest number, which void is taken for
    # where the largest or the smallest label around a pixel is looked for.
    outside = void + 1
    padded = cv2.copyMakeBorder(
        labels.astype(depth) + depth(1), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=outside
    )
    is_void = padded == void + 1
    is_void[[0, -1]] = is_void[:, [0, -1]] = False
    side = 2 * distance + 1
    square = np.ones((side, side), np.uint8)
    most = np.iinfo(depth).max
    largest = cv2.dilate(np.where(is_void, 0, padded), square, borderType=cv2.BORDER_REPLICATE)
    smallest = cv2.erode(np.where(is_void, most, padded), square, borderType=cv2.BORDER_REPLICATE)
    return ((largest != smallest) & ~is_void)[1:-1, 1:-1]
