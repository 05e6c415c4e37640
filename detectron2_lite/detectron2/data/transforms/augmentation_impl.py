"""The augmentations. All random numbers come from numpy's global generator."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data.transforms.augmentation import AugInput, Augmentation, as_augmentation
from detectron2.data.transforms.transform import ResizeTransform
from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image


class RandomApply(Augmentation):
    """Another augmentation (or transform) with probability ``prob``, otherwise nothing."""

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5) -> None:
        assert 0.0 <= prob <= 1.0, f"a probability lies in [0, 1], not {prob}"
        self.aug = as_augmentation(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._hit() else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._hit() else NoOpTransform()

    def _hit(self) -> bool:
        return self._rand_range() < self.prob


class RandomFlip(Augmentation):
    """Flip with probability ``prob``, left-right or (exclusively) up-down."""

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        if horizontal == vertical:
            raise ValueError("RandomFlip takes one of horizontal and vertical; use two for both")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter side gets a random length, but the longer at most ``max_size``.

    Args:
        short_edge_length: (min, max) to draw from if ``sample_style`` is "range", the lengths to
            choose from if it is "choice"; an int is the only choice.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ) -> None:
        assert sample_style in ("range", "choice"), sample_style
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        assert sample_style == "choice" or len(short_edge_length) == 2, (
            f"a range of lengths is (min, max), not {short_edge_length}"
        )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        if self.sample_style == "range":
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        target = self.get_output_shape(height, width, int(size), self.max_size)
        return ResizeTransform(height, width, *target, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after the resize, each rounded to the nearest pixel."""
        target = float(short_edge_length)
        long_side = target / min(oldh, oldw) * max(oldh, oldw)
        if long_side > max_size:
            shrink = max_size / long_side
            target, long_side = target * shrink, long_side * shrink
        short_side, long_side = int(target + 0.5), int(long_side + 0.5)
        return (short_side, long_side) if oldh < oldw else (long_side, short_side)


class ResizeScale(Augmentation):
    """Resize to fit, without distortion, into the target box times a random scale."""

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.BILINEAR,
    ) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        scale = np.random.uniform(self.min_scale, self.max_scale)
        size = np.array(image.shape[:2])
        factor = (scale * np.array([self.target_height, self.target_width]) / size).min()
        new_h, new_w = np.round(size * factor).astype(int).tolist()
        return ResizeTransform(*image.shape[:2], new_h, new_w, self.interp)


class FixedSizeCrop(Augmentation):
    """Random crop of (height, width); what an image lacks is padded at the right and the bottom.

    Args:
        pad: False leaves smaller images smaller.
        pad_value: for the image, in its own units.
        seg_pad_value: for the mask.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        size, target = np.array(image.shape[:2]), np.array(self.crop_size)
        # One draw places the window on the diagonal of the free range.
        y, x = np.round(np.maximum(size - target, 0) * np.random.uniform()).astype(int).tolist()
        (height, width), (crop_h, crop_w) = size.tolist(), target.tolist()
        transforms: list[Transform] = [CropTransform(x, y, crop_w, crop_h, width, height)]
        if self.pad:
            pad_y, pad_x = np.maximum(target - size, 0).tolist()
            kept_h, kept_w = np.minimum(size, target).tolist()
            transforms.append(
                PadTransform(0, 0, pad_x, pad_y, kept_w, kept_h, self.pad_value, self.seg_pad_value)
            )
        return TransformList(transforms)


class RandomCrop(Augmentation):
    """Crop a random window.

    Args:
        crop_type: what ``crop_size`` is: "relative": the window's share (height, width) of the
            image; "relative_range": the lowest such shares, up to 1; "absolute": (height, width) in
            pixels, clipped to the image; "absolute_range": (min, max) in pixels, for both sides.
    """

    def __init__(self, crop_type: str, crop_size: tuple[float, float]) -> None:
        assert crop_type in ("relative", "relative_range", "absolute", "absolute_range"), crop_type
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        y0 = np.random.randint(height - crop_h + 1)
        x0 = np.random.randint(width - crop_w + 1)
        return CropTransform(x0, y0, crop_w, crop_h)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels of a window for an image of that (height, width)."""
        first, second = self.crop_size
        height, width = image_size
        if self.crop_type == "absolute":
            return min(first, height), min(second, width)
        if self.crop_type == "absolute_range":
            assert first <= second, f"a range of sizes is (min, max), not {self.crop_size}"
            crop_h = np.random.randint(min(height, first), min(height, second) + 1)
            crop_w = np.random.randint(min(width, first), min(width, second) + 1)
            return crop_h, crop_w
        shares = np.array(self.crop_size, np.float32)
        if self.crop_type == "relative_range":
            shares = shares + np.random.rand(2) * (1 - shares)
        return int(height * shares[0] + 0.5), int(width * shares[1] + 0.5)


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
        crop_size: tuple[float, float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        attempts = 10 if self.single_category_max_area < 1.0 else 1
        for _ in range(attempts):
            crop = self.crop_aug.get_transform(image)
            if self._accepts(crop.apply_segmentation(sem_seg)):
                break
        return crop

    def _accepts(self, labels: np.ndarray) -> bool:
        categories, areas = np.unique(labels, return_counts=True)
        if self.ignored_category is not None:
            areas = areas[categories != self.ignored_category]
        return len(areas) > 1 and areas.max() < areas.sum() * self.single_category_max_area


class _RandomBlend(Augmentation):
    """Blend the image with a dull version of itself: weight w for the image, 1 - w for the other.

    w is drawn from [intensity_min, intensity_max); below 1 weakens, above 1 strengthens.
    """

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(self._dull(image), 1 - weight, weight)

    def _dull(self, image: np.ndarray) -> Any:
        raise NotImplementedError


class RandomContrast(_RandomBlend):
    """Random contrast; the dull image is the mean value."""

    def _dull(self, image: np.ndarray) -> float:
        return image.mean()


class RandomBrightness(_RandomBlend):
    """Random brightness; the dull image is black."""

    def _dull(self, image: np.ndarray) -> float:
        return 0


class RandomSaturation(_RandomBlend):
    """Random saturation of an RGB image; the dull image is grey (ITU-R BT.601 luma)."""

    def _dull(self, image: np.ndarray) -> np.ndarray:
        assert image.shape[-1] == 3, f"RandomSaturation needs RGB, not {image.shape[-1]} channels"
        return image.dot([0.299, 0.587, 0.114])[:, :, None]
