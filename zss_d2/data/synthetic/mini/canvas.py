"""Integer building blocks of the drawings: rotated coordinates and smooth noise.

Everything is integer arithmetic on arrays of SIZE x SIZE, so that the pixels depend neither on the
processor nor on the version of a drawing library.
"""

from __future__ import annotations

import numpy as np

SIZE = 96  # px, both edges of a scene
ANGLES = 32  # steps of a full turn
ROWS, COLUMNS = (axis.astype(np.int32) for axis in np.mgrid[:SIZE, :SIZE])

_TURNS = 2 * np.pi * np.arange(ANGLES) / ANGLES
_COSINES = np.rint(256 * np.cos(_TURNS)).astype(int).tolist()
_SINES = np.rint(256 * np.sin(_TURNS)).astype(int).tolist()


def rotated(angle: int, row: int = 0, column: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in px along and across a direction, relative to a point.

    Args:
        angle: in 1/32 turns.
        row, column: the point.

    Returns:
        Two (SIZE, SIZE) int32 arrays.
    """
    cosine, sine = _COSINES[angle % ANGLES], _SINES[angle % ANGLES]
    x, y = COLUMNS - column, ROWS - row
    return (x * cosine + y * sine) >> 8, (y * cosine - x * sine) >> 8


def smooth_noise(rng: np.random.Generator, down: int, across: int) -> np.ndarray:
    """Return (SIZE, SIZE) int32 noise in -128..127, bilinear between lattice points.

    Args:
        down, across: distance of the lattice points in px; 1 gives white noise.
    """
    shape = tuple((SIZE + step - 2) // step + 2 for step in (down, across))
    lattice = rng.integers(-128, 128, shape, dtype=np.int32)
    lattice = _stretch(lattice, down, int(rng.integers(down)))
    return _stretch(lattice.T, across, int(rng.integers(across))).T


def _stretch(lattice: np.ndarray, step: int, phase: int) -> np.ndarray:
    """Interpolate the first axis linearly to SIZE rows."""
    index, part = np.divmod(np.arange(SIZE, dtype=np.int32) + phase, step)
    part = part[:, None]
    return (lattice[index] * (step - part) + lattice[index + 1] * part) // step
