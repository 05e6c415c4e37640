"""Outlines of objects; they say nothing about the class."""

from __future__ import annotations

import numpy as np

from zss_d2.data.synthetic.mini.canvas import ANGLES, rotated

_KINDS = 6


def draw_outline(
    rng: np.random.Generator, centre: tuple[int, int], radii: tuple[int, int]
) -> np.ndarray:
    """Return a random filled outline, (SIZE, SIZE) bool.

    Args:
        centre: row and column in px; parts outside the canvas are cut off.
        radii: half extents in px along the outline's own two axes.
    """
    kind, angle = int(rng.integers(_KINDS)), int(rng.integers(ANGLES))
    u, v = rotated(angle, *centre)
    wide, high = radii
    if kind == 0:
        return _ellipse(u, v, wide, high)
    if kind == 1:
        return (np.abs(u) <= wide) & (np.abs(v) <= high)
    if kind == 2:  # triangle
        return (v <= high) & (2 * high * np.abs(u) <= wide * (v + high))
    if kind == 3:  # hexagon
        return (np.abs(v) <= high) & (np.abs(u) + np.abs(v) // 2 <= wide)
    if kind == 4:  # cross
        bar = (np.abs(u) <= wide) & (2 * np.abs(v) <= high)
        return bar | ((np.abs(v) <= high) & (2 * np.abs(u) <= wide))
    return _ellipse(u, v, wide, high) & ~_ellipse(u - wide, v, wide * 2 // 3, high * 2 // 3)


def draw_scribble(rng: np.random.Generator, centre: tuple[int, int], radius: int) -> np.ndarray:
    """Return a zigzag stroke, (SIZE, SIZE) bool."""
    u, v = rotated(int(rng.integers(ANGLES)), *centre)
    period = int(rng.integers(8, 15))
    zigzag = np.abs(u % period - period // 2) * 2
    return (np.abs(u) <= radius) & (np.abs(v - zigzag) <= 3)


def _ellipse(u: np.ndarray, v: np.ndarray, wide: int, high: int) -> np.ndarray:
    return (u * high) ** 2 + (v * wide) ** 2 <= (wide * high) ** 2
