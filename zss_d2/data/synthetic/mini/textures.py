"""Surfaces of things and textures of stuff, as (SIZE, SIZE, 3) int32 RGB before lighting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zss_d2.data.synthetic.mini.banks import Variant
from zss_d2.data.synthetic.mini.canvas import ANGLES, COLUMNS, ROWS, rotated, smooth_noise
from zss_d2.data.synthetic.mini.vocabulary import CLASSES, COLOURS, is_thing, thing_parts

Colour = tuple[int, int, int]


def paint_class(rng: np.random.Generator, class_id: int, variant: Variant) -> np.ndarray:
    """Fill the canvas with the look of a class; the generator places it."""
    if is_thing(class_id):
        colour, pattern = thing_parts(class_id)
        return _thing(rng, COLOURS[colour], pattern, variant)
    return _STUFF[CLASSES[class_id]](rng, variant) + np.int32(variant.tint)


def _thing(rng: np.random.Generator, base: Colour, pattern: str, variant: Variant) -> np.ndarray:
    ground = np.int32(base) + np.int32(variant.tint)
    ink = ground * (95 - variant.contrast * 5 // 8) // 100
    covered = pattern_mask(rng, pattern, variant)
    return np.stack([ground, ink])[covered.astype(np.intp)]


def pattern_mask(rng: np.random.Generator, pattern: str, variant: Variant) -> np.ndarray:
    """Return where the ink of a thing's pattern lies, (SIZE, SIZE) bool; nowhere if plain."""
    row, column = (int(value) for value in rng.integers(32, size=2))
    along, across = rotated(variant.turns * ANGLES // 4, row, column)
    period = variant.period
    if pattern == "striped":
        return along % period < period // 2
    if pattern == "dotted":
        centre = period // 2
        distance = (along % period - centre) ** 2 + (across % period - centre) ** 2
        return distance * 9 <= period * period
    if pattern == "checked":
        side = period // 2 + 1
        return (along // side + across // side) % 2 == 0
    if pattern == "meshed":
        return (along % period < 2) | (across % period < 2)
    return np.zeros(along.shape, bool)


def _mix(low: Colour, high: Colour, weight: np.ndarray) -> np.ndarray:
    """Blend two colours; ``weight`` is 0..255 and is clipped to that."""
    weight = np.clip(weight, 0, 255)[..., None]
    return (np.int32(low) * (255 - weight) + np.int32(high) * weight) // 255


def _grass(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    blades = smooth_noise(rng, variant.period, 2)
    return _mix((40, 75, 25), (130, 175, 75), 128 + blades * variant.contrast // 60)


def _sand(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    grains = smooth_noise(rng, 1, 1)
    return _mix((160, 130, 85), (240, 215, 165), 128 + grains * variant.contrast // 100)


def _water(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    height = ROWS * 64 + smooth_noise(rng, 12, 20) * 2
    period = 64 * variant.period
    wave = np.abs(height % period - period // 2) * 510 // period
    return _mix((25, 75, 130), (110, 175, 205), wave * variant.contrast // 100)


def _brick(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    height, width = variant.period + 1, 2 * variant.period + 2
    row = ROWS + int(rng.integers(64))
    column = COLUMNS + int(rng.integers(64)) + row // height % 2 * (width // 2)
    mortar = (row % height < 2) | (column % width < 2)
    shade = 128 + smooth_noise(rng, 6, 9) * variant.contrast // 120
    clay = _mix((115, 50, 35), (180, 95, 70), shade)
    return np.where(mortar[..., None], np.int32((190, 180, 165)), clay)


def _wood(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    grain = smooth_noise(rng, 3, 32) + smooth_noise(rng, variant.period, 48) // 2
    return _mix((75, 45, 20), (185, 130, 75), 128 + grain * variant.contrast // 75)


def _snow(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    drift = smooth_noise(rng, 10, 2 * variant.period + 6)
    return _mix((195, 205, 225), (250, 250, 252), 150 + drift * variant.contrast // 100)


def _gravel(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    step = 2 + variant.period // 3
    stones = (smooth_noise(rng, step, step) + 128) // 52 * 64
    return _mix((55, 55, 60), (190, 185, 180), stones * variant.contrast // 100)


def _tile(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    side = variant.period + 5
    row, column = ROWS + int(rng.integers(64)), COLUMNS + int(rng.integers(64))
    joint = (row % side < 2) | (column % side < 2)
    shine = (row % side + column % side) * 128 // side * variant.contrast // 100
    glaze = _mix((120, 185, 180), (215, 240, 235), shine)
    return np.where(joint[..., None], np.int32((70, 85, 90)), glaze)


def _cloud(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    puffs = smooth_noise(rng, 2 * variant.period, 3 * variant.period)
    return _mix((105, 160, 225), (240, 243, 248), 110 + puffs * variant.contrast // 50)


def _lava(rng: np.random.Generator, variant: Variant) -> np.ndarray:
    step = variant.period + 2
    vein = 255 - np.abs(smooth_noise(rng, step, step)) * 9 * variant.contrast // 100
    return _mix((45, 18, 15), (250, 130, 20), vein)


_STUFF: dict[str, Callable[[np.random.Generator, Variant], np.ndarray]] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick": _brick,
    "wood": _wood,
    "snow": _snow,
    "gravel": _gravel,
    "tile": _tile,
    "cloud": _cloud,
    "lava": _lava,
}
