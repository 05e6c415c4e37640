"""Texture banks: the variants of each class's looks that a split may use.

A split never shows a variant of another split, so dev and val measure looks that training lacked.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

# Variants per class and bank. CLIP pretraining draws from the training bank.
BANK_SIZES = {"train": 32, "dev": 8, "val": 8}
_PERIODS = (6, 8)
_BANK_SEED = 20_403
_MAX_TINT = 24


@dataclass(frozen=True)
class Variant:
    """How one class may look.

    Attributes:
        turns: direction of a thing's pattern in quarter turns. Free angles make patterns so hard to
            learn that CLIP would need many times the budget.
        period: of a thing's pattern in px; stuff textures scale with it.
        contrast: in percent of the usual one.
        tint: added to R, G and B.
    """

    turns: int
    period: int
    contrast: int
    tint: tuple[int, int, int]


@functools.cache
def bank(name: str, class_id: int) -> tuple[Variant, ...]:
    """Return the variants of a class in the bank ``train``, ``dev`` or ``val``."""
    names = tuple(BANK_SIZES)
    start = sum(BANK_SIZES[other] for other in names[: names.index(name)])
    return _variants(class_id)[start : start + BANK_SIZES[name]]


@functools.cache
def _variants(class_id: int) -> tuple[Variant, ...]:
    """Return distinct variants of a class, enough for all banks."""
    rng = np.random.default_rng([_BANK_SEED, class_id])
    total = sum(BANK_SIZES.values())
    variants: dict[Variant, None] = {}
    while len(variants) < total:
        turns, contrast = (int(rng.integers(n)) for n in (4, 41))
        tint = tuple(int(value) for value in rng.integers(-_MAX_TINT, _MAX_TINT + 1, 3))
        period = _PERIODS[int(rng.integers(len(_PERIODS)))]
        variants[Variant(turns, period, 80 + contrast, tint)] = None
    return tuple(variants)
