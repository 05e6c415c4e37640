"""Transforms (fixed operations, mostly fvcore's) and augmentations (random choices of them).

All random numbers come from numpy's global generator.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2._slice import describe_missing
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image


class ResizeTransform(Transform):
    """Resize from (h, w) to (new_h, new_w) by a PIL filter (None: bilinear); labels by nearest."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        interp = Image.BILINEAR if interp is None else interp
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize uint8 (h, w) or (h, w, C) with PIL, which antialiases."""
        assert img.shape[:2] == (self.h, self.w), f"{img.shape} is not {self.h} x {self.w}"
        if img.dtype != np.uint8:
            raise NotImplementedError(describe_missing(f"ResizeTransform of {img.dtype}"))
        image = Image.fromarray(img[:, :, 0] if img.shape[2:] == (1,) else img)
        resized = image.resize((self.new_w, self.new_h), self.interp if interp is None else interp)
        return np.asarray(resized).reshape(self.new_h, self.new_w, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points (N, 2) in x, y order."""
        return coords * np.array([self.new_w / self.w, self.new_h / self.h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)


class AugInput:
    """What augmentations look at and change: image (H, W) or (H, W, C), and labels (H, W)."""

    def __init__(self, image: np.ndarray, *, sem_seg: np.ndarray | None = None) -> None:
        assert isinstance(image, np.ndarray), f"an image is a numpy array, not {type(image)}"
        assert image.ndim in (2, 3), f"an image has 2 or 3 dimensions, not {image.shape}"
        self.image = image
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Replace every attribute by its transformed version."""
        self.image = tfm.apply_image(self.image)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)


class Augmentation:
    """A random choice of a transform.

    Subclasses define ``get_transform``. Its parameters name the attributes of the ``AugInput`` that
    the choice depends on; a single one is always the image.
    """

    # Keeps the constructor's arguments (``self._init(locals())``) as attributes.
    _init = Transform._set_attributes

    def get_transform(self, *args: Any) -> Transform:
        """Choose the transform for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform")

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, apply it to ``aug_input`` in place and return it for other data.

        Raises AttributeError if the input lacks what ``get_transform`` asks for.
        """
        names = list(inspect.signature(self.get_transform).parameters)
        names = ["image"] if len(names) == 1 else names
        transform = self.get_transform(*(getattr(aug_input, name) for name in names))
        aug_input.transform(transform)
        return transform


def _apply(step: Transform | Augmentation, aug_input: AugInput) -> Transform:
    if isinstance(step, Augmentation):
        return step(aug_input)
    aug_input.transform(step)
    return step


class AugmentationList(Augmentation):
    """Augmentations (or transforms) applied one after the other."""

    def __init__(self, augs: Sequence[Transform | Augmentation]) -> None:
        self.augs = augs

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Apply all in place; returns what was applied."""
        return TransformList([_apply(aug, aug_input) for aug in self.augs])


class RandomApply(Augmentation):
    """Another augmentation (or transform) with probability ``prob``, otherwise nothing."""

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5) -> None:
        self._init(locals())

    def __call__(self, aug_input: AugInput) -> Transform:
        hit = np.random.uniform() < self.prob
        return _apply(self.tfm_or_aug, aug_input) if hit else NoOpTransform()


class RandomFlip(Augmentation):
    """Flip with probability ``prob``, left-right or (exclusively) up-down."""

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        if horizontal == vertical:
            raise ValueError("RandomFlip takes one of horizontal and vertical; use two for both")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter side gets a random length, but the longer at most ``max_size``.

    ``short_edge_length`` is (min, max) to draw from, both included, or the only length.
    """

    def __init__(
        self, short_edge_length: int | tuple[int, int], max_size: int = sys.maxsize
    ) -> None:
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        low, high = self.short_edge_length
        size = np.random.randint(low, high + 1)
        height, width = image.shape[:2]
        target = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, *target)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after the resize, each rounded to the nearest pixel."""
        # In this order, so that no size differs from upstream's by the rounding of floats.
        short, long = short_edge_length, short_edge_length / min(oldh, oldw) * max(oldh, oldw)
        if long > max_size:
            short, long = short * (max_size / long), long * (max_size / long)
        short, long = int(short + 0.5), int(long + 0.5)
        return (short, long) if oldh < oldw else (long, short)


class RandomCrop(Augmentation):
    """Crop a random window of ``crop_size`` = (height, width) pixels, clipped to the image.

    ``crop_type`` is "absolute"; upstream has more.
    """

    def __init__(self, crop_type: str, crop_size: tuple[int, int]) -> None:
        assert crop_type == "absolute", describe_missing(f"crop_type {crop_type!r}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        size = np.array(image.shape[:2])
        window = np.minimum(self.crop_size, size)
        (y, x), (height, width) = np.random.randint(size - window + 1).tolist(), window.tolist()
        return CropTransform(x, y, width, height)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """``RandomCrop`` with at least two categories, none of them on too much of the window.

    Ten windows are tried; if none will do, the last one is taken.

    Args:
        single_category_max_area: upper limit of a category's share in the counted pixels; 1 turns
            the constraint off.
        ignored_category: label that is not counted.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: tuple[int, int],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        for _ in range(10 if self.single_category_max_area < 1.0 else 1):
            crop = self.crop_aug.get_transform(image)
            labels, areas = np.unique(crop.apply_segmentation(sem_seg), return_counts=True)
            if self.ignored_category is not None:
                areas = areas[labels != self.ignored_category]
            if len(areas) > 1 and areas.max() < areas.sum() * self.single_category_max_area:
                break
        return crop
