"""Composes scenes: stuff regions, things in front of each other, clutter, light and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zss_d2.data.synthetic.mini.banks import Variant, bank
from zss_d2.data.synthetic.mini.canvas import ANGLES, SIZE, rotated, smooth_noise
from zss_d2.data.synthetic.mini.shapes import draw_outline, draw_scribble
from zss_d2.data.synthetic.mini.textures import paint_class
from zss_d2.data.synthetic.mini.vocabulary import CLASSES, THINGS, VOID, caption

# A class with fewer labelled px counts as not visible: void in the labels, absent in the caption.
MIN_VISIBLE_AREA = 80
# Changes whenever the same seeds would give other pixels.
WORLD_VERSION = 1

# Texture bank and seed of every stream of scenes; "clip" is what CLIP is pretrained on.
STREAMS = {
    "train": ("train", 11),
    "dev": ("dev", 12),
    "val": ("val", 13),
    "clip": ("train", 14),
    "probe": ("dev", 15),
}

_CLUTTER_COLOURS = ((35, 35, 38), (120, 120, 120), (235, 235, 235), (40, 195, 195), (245, 150, 195))


@dataclass(frozen=True)
class Plan:
    """What to draw.

    Attributes:
        things: ids, back to front.
        stuff: ids of one or two regions.
        clutter: whether there is an object of no class.
        close_up: whether things fill most of the scene.
    """

    things: tuple[int, ...]
    stuff: tuple[int, ...]
    clutter: bool = False
    close_up: bool = False


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: (SIZE, SIZE, 3) uint8 RGB.
        labels: (SIZE, SIZE) uint8, ids of all classes and VOID.
        classes: ids with at least MIN_VISIBLE_AREA px, which are exactly those in ``labels``.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: tuple[int, ...]

    @property
    def caption(self) -> str:
        return caption(self.classes)


def scene_rng(stream: str, index: int, seed: int = 0) -> np.random.Generator:
    """Return the generator of scene ``index`` of a stream."""
    return np.random.default_rng([seed, STREAMS[stream][1], index])


def draw_scene(stream: str, index: int, seed: int = 0) -> Scene:
    """Draw scene ``index`` of a stream of STREAMS; the same arguments give the same pixels."""
    rng = scene_rng(stream, index, seed)
    return draw_plan(sample_plan(rng), STREAMS[stream][0], rng)


def sample_plan(rng: np.random.Generator, counts: Sequence[int] = (1, 1, 2, 2, 2, 3)) -> Plan:
    """Choose classes at random, every one equally often.

    Args:
        counts: number of things, drawn from this list.
    """
    count = counts[int(rng.integers(len(counts)))]
    things = rng.permutation(len(THINGS))[:count]
    stuff = len(THINGS) + rng.permutation(len(CLASSES) - len(THINGS))
    regions = 2 if rng.integers(10) < 4 else 1
    return Plan(
        things=tuple(things.tolist()),
        stuff=tuple(stuff[:regions].tolist()),
        clutter=bool(rng.integers(2)),
    )


def draw_plan(plan: Plan, bank_name: str, rng: np.random.Generator) -> Scene:
    """Draw a plan with the textures of a bank."""
    image, labels = _ground(plan.stuff, bank_name, rng)
    instance = np.zeros((SIZE, SIZE), np.int32)
    objects: list[int] = list(plan.things)
    if plan.clutter:
        objects.insert(int(rng.integers(len(objects) + 1)), VOID)
    for number, class_id in enumerate(objects, start=1):
        margin = SIZE // 3 if plan.close_up else 14
        centre = tuple(int(value) for value in rng.integers(margin, SIZE - margin, 2))
        if class_id == VOID:
            mask, paint = _clutter(rng, centre)
        else:
            low, high = (36, 61) if plan.close_up else (15, 29)
            radii = tuple(int(value) for value in rng.integers(low, high, 2))
            mask = draw_outline(rng, centre, radii)
            paint = paint_class(rng, class_id, _variant(rng, bank_name, class_id))
        image[mask] = paint[mask]
        labels[mask] = class_id
        instance[mask] = number
    labels[_borders(instance)] = VOID
    areas = np.bincount(labels.ravel(), minlength=256)
    for class_id in np.flatnonzero((areas > 0) & (areas < MIN_VISIBLE_AREA)):
        labels[labels == class_id] = VOID
    visible = tuple(i for i in (*plan.things, *plan.stuff) if areas[i] >= MIN_VISIBLE_AREA)
    return Scene(_light(image, rng), labels, visible)


def _variant(rng: np.random.Generator, bank_name: str, class_id: int) -> Variant:
    variants = bank(bank_name, class_id)
    return variants[int(rng.integers(len(variants)))]


def _ground(
    stuff: Sequence[int], bank_name: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of one or two stuff regions with a wavy line between, and its labels."""
    paints = [paint_class(rng, i, _variant(rng, bank_name, i)) for i in stuff]
    image, labels = paints[0], np.full((SIZE, SIZE), stuff[0], np.uint8)
    if len(stuff) == 2:
        along, _ = rotated(int(rng.integers(ANGLES)), SIZE // 2, SIZE // 2)
        second = along + smooth_noise(rng, 24, 24) // 16 > int(rng.integers(-14, 15))
        image[second] = paints[1][second]
        labels[second] = stuff[1]
    return image, labels


def _clutter(rng: np.random.Generator, centre: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask and the paint of an object that belongs to no class."""
    radius = int(rng.integers(8, 17))
    if rng.integers(2):
        mask = draw_scribble(rng, centre, 2 * radius)
    else:
        mask = draw_outline(rng, centre, (radius, int(rng.integers(8, 17))))
    colour = _CLUTTER_COLOURS[int(rng.integers(len(_CLUTTER_COLOURS)))]
    return mask, np.int32(colour) + smooth_noise(rng, 4, 4)[..., None] // 6


def _borders(instance: np.ndarray) -> np.ndarray:
    """Return the px on either side of every object's outline, (SIZE, SIZE) bool."""
    border = np.zeros(instance.shape, bool)
    down, across = instance[1:] != instance[:-1], instance[:, 1:] != instance[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border


def _light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a linear gradient of light and sensor noise; returns uint8."""
    ramp, _ = rotated(int(rng.integers(ANGLES)), SIZE // 2, SIZE // 2)
    gain = int(rng.integers(205, 282)) + ramp * int(rng.integers(65)) // (SIZE // 2)
    strength = int(rng.integers(3, 13))
    noise = rng.integers(-strength, strength + 1, image.shape, dtype=np.int32)
    return np.clip((image * gain[..., None] >> 8) + noise, 0, 255).astype(np.uint8)
