"""Colours of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

# Of what is no class, light grey.
IGNORED = (0.85, 0.85, 0.85)


def class_colours(
    names: Sequence[str], given: Mapping[str, Sequence[int]] | None = None
) -> np.ndarray:
    """Colours (len(names), 3) in 0..1 of classes: those that are given for a name, 0..255, first.

    The others are as far, in CIELAB, as can be from white, void, and all before.
    """
    given = given or {}
    colours = np.zeros((len(names), 3))
    known = np.array([name in given for name in names], bool)
    colours[known] = np.array([given[name] for name in names if name in given]).reshape(-1, 3) / 255
    colours[~known] = distinct_colours(int((~known).sum()), colours[known])
    return colours


def distinct_colours(number: int, taken: np.ndarray | None = None) -> np.ndarray:
    """Colours (number, 3) in 0..1, each as far as CIELAB has it from white, void and all before.

    Colours ``taken`` (N, 3) are avoided too.
    """
    avoided = np.array([IGNORED, (1, 1, 1), *([] if taken is None else taken)], float)
    return _distinct(number, tuple(map(tuple, avoided.tolist()))).copy()


@lru_cache(maxsize=16)
def _distinct(number: int, avoided: tuple[tuple[float, ...], ...]) -> np.ndarray:
    steps = np.linspace(0, 1, 12, dtype=np.float32)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    readable = (lab[:, 0] > 30) & (lab[:, 0] < 90)
    candidates, lab = candidates[readable], lab[readable]
    taken = _lab(np.array(avoided, np.float32))
    distance = np.linalg.norm(lab[:, None] - taken, axis=-1).min(axis=1)
    chosen = []
    for _ in range(number):
        best = int(distance.argmax())
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=-1))
    return np.array(chosen, dtype=float).reshape(number, 3)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """RGB (N, 3), float32 in 0..1, -> CIELAB (N, 3)."""
    import cv2

    return cv2.cvtColor(rgb[None], cv2.COLOR_RGB2LAB)[0]


def colourise(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint labels (H, W) -> (H, W, 3) in 0..1; what is no class is grey."""
    lut = np.concatenate([colours, [IGNORED]])
    return lut[np.where(labels < len(colours), labels, len(colours))]
