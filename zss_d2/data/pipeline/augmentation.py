"""The augmentations of the usual segmentation recipe that Detectron2 lacks or does slowly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import detectron2.data.transforms as T
import numpy as np
from PIL import Image


class ResizeWithinBox(T.Augmentation):
    """Fit the image into a box of random scale, keeping its aspect.

    The box has a long and a short edge in px; the image is scaled, up or down, until one of its
    edges meets the edge of the same rank.
    """

    def __init__(self, box: Sequence[int], scale_range: Sequence[float]):
        super().__init__()
        self.long_edge, self.short_edge = max(box), min(box)
        self.low, self.high = scale_range

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        scale = np.random.uniform(self.low, self.high)
        factor = scale * min(
            self.long_edge / max(height, width), self.short_edge / min(height, width)
        )
        new_height, new_width = (max(1, round(edge * factor)) for edge in (height, width))
        return LabelledResize(height, width, new_height, new_width, Image.BILINEAR)


class LabelledResize(T.ResizeTransform):
    """Detectron2's resize; labels of more than 8 bit meet the same pixels as those of 8 bit.

    For other types than uint8 its nearest neighbour is half a pixel off.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        if segmentation.dtype == np.uint8:
            return super().apply_segmentation(segmentation)
        picture = Image.fromarray(segmentation.astype(np.int32))
        return np.asarray(picture.resize((self.new_w, self.new_h), Image.NEAREST))


class OpenCVResize(T.Augmentation):
    """The sizes of another resize, without antialiasing: OpenCV's bilinear, as mmsegmentation's.

    Labels are OpenCV's nearest neighbours, up to half a pixel off the centres, as there.
    """

    def __init__(self, sizes: T.Augmentation):
        super().__init__()
        self.sizes = sizes

    def get_transform(self, image: np.ndarray) -> T.Transform:
        chosen = self.sizes.get_transform(image)
        return OpenCVResizeTransform(chosen.h, chosen.w, chosen.new_h, chosen.new_w)


class OpenCVResizeTransform(T.ResizeTransform):
    """Resizes from (h, w) to (new_h, new_w) by ``cv2.resize``."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        size = (self.new_w, self.new_h)
        return cv2.resize(segmentation, size, interpolation=cv2.INTER_NEAREST)


class CategoryCrop(T.RandomCrop_CategoryAreaConstraint):
    """The same crops as its parent, several times faster: pixels are counted, not sorted."""

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        for _ in range(10 if self.single_category_max_area < 1 else 1):
            crop = self.crop_aug.get_transform(image)
            areas = np.bincount(crop.apply_segmentation(sem_seg).ravel())
            if self.ignored_category is not None:
                areas[self.ignored_category : self.ignored_category + 1] = 0
            areas = areas[areas > 0]
            if len(areas) > 1 and areas.max() < areas.sum() * self.single_category_max_area:
                break
        return crop


class RandomColour(T.Augmentation):
    """``operation(image, strength)`` with a strength drawn uniformly from [low, high)."""

    def __init__(
        self, operation: Callable[[np.ndarray, float], np.ndarray], low: float, high: float
    ):
        super().__init__()
        self.operation, self.low, self.high = operation, low, high

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return ColourTransform(self.operation, np.random.uniform(self.low, self.high))


class ColourTransform(T.Transform):
    """Changes colours by ``operation(image, strength)``; geometry and labels stay as they are."""

    def __init__(self, operation: Callable[[np.ndarray, float], np.ndarray], strength: float):
        super().__init__()
        self.operation, self.strength = operation, strength

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.operation(img, self.strength)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the grey levels of a uint8 image."""
    return cv2.LUT(image, _table(np.arange(256) * factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance of a uint8 image's grey levels to their mean."""
    mean = np.mean(cv2.mean(image)[:3])
    return cv2.LUT(image, _table(mean + (np.arange(256) - mean) * factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance of an RGB uint8 image to its grey version (ITU-R BT.601 luma)."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def turn_hue(image: np.ndarray, degrees: float) -> np.ndarray:
    """Add an angle to the hue of every pixel of an RGB uint8 image."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    # The full circle of hue is 0..255 there, so uint8 arithmetic wraps as it should.
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _table(levels: np.ndarray) -> np.ndarray:
    return levels.round().clip(0, 255).astype(np.uint8)


def photometric_distortion() -> list[T.Augmentation]:
    """Brightness, contrast, saturation and hue, each with probability 0.5, for RGB uint8 images.

    The ranges are the customary ones: +-32 of 128 grey levels, factors 0.5 to 1.5, +-36 degrees.
    Detectron2's own brightness, contrast and saturation are floating point and far slower.
    """
    return [
        T.RandomApply(RandomColour(operation, low, high), prob=0.5)
        for operation, low, high in (
            (brightness, 0.75, 1.25),
            (contrast, 0.5, 1.5),
            (saturation, 0.5, 1.5),
            (turn_hue, -36, 36),
        )
    ]


class MmsegmentationColours(T.Augmentation):
    """Photometric distortion in the arithmetic of mmsegmentation 0.x, for RGB uint8 images.

    Brightness, contrast (before the rest or after it, at random), saturation and hue, each with
    probability 0.5: levels + b with b in [-32, 32); levels * c, not around their mean, and
    saturation (HSV) * s with c, s in [0.5, 1.5); hue + h with h in -18..17 of 180 steps. What
    leaves 0..255 is clipped, fractions are cut off.
    """

    def get_transform(self, image: np.ndarray) -> T.Transform:
        contrast_first = _coin()
        steps = (
            (add_to_levels, np.random.uniform(-32, 32), True),
            (scale_levels, np.random.uniform(0.5, 1.5), contrast_first),
            (scale_hsv_saturation, np.random.uniform(0.5, 1.5), True),
            (step_hue, np.random.randint(-18, 18), True),
            (scale_levels, np.random.uniform(0.5, 1.5), not contrast_first),
        )
        return T.TransformList(
            [ColourTransform(operation, x) for operation, x, due in steps if due and _coin()]
        )


def add_to_levels(image: np.ndarray, delta: float) -> np.ndarray:
    """Add to the grey levels of a uint8 image."""
    return cv2.LUT(image, _cut(np.arange(256, dtype=np.float32) + delta))


def scale_levels(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the grey levels of a uint8 image."""
    return cv2.LUT(image, _cut(np.arange(256, dtype=np.float32) * factor))


def scale_hsv_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the saturation, in HSV, of an RGB uint8 image."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = scale_levels(hsv[..., 1], factor)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def step_hue(image: np.ndarray, steps: int) -> np.ndarray:
    """Turn the hue of an RGB uint8 image by steps of 2 degrees."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + steps) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _cut(levels: np.ndarray) -> np.ndarray:
    return levels.clip(0, 255).astype(np.uint8)


def _coin() -> bool:
    return bool(np.random.randint(2))
