"""The two augmentations of the usual segmentation recipe that Detectron2 lacks, and the recipe."""

from __future__ import annotations

from collections.abc import Sequence

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
        return T.ResizeTransform(height, width, new_height, new_width, Image.BILINEAR)


class RandomHue(T.Augmentation):
    """Turn the hue of an RGB uint8 image by an angle drawn uniformly from +-``max_degrees``."""

    def __init__(self, max_degrees: float):
        super().__init__()
        self.max_degrees = max_degrees

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return HueTransform(np.random.uniform(-self.max_degrees, self.max_degrees))


class HueTransform(T.Transform):
    """Add ``degrees`` to the hue of every pixel; geometry and labels stay as they are."""

    def __init__(self, degrees: float):
        super().__init__()
        self.degrees = degrees

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        # Pillow stores the full circle of hue in 0..255, so uint8 arithmetic wraps as it should.
        shift = np.uint8(round(self.degrees / 360 * 256) % 256)
        hsv = np.array(Image.fromarray(img).convert("HSV"))
        hsv[..., 0] += shift
        return np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


def photometric_distortion() -> list[T.Augmentation]:
    """Brightness, contrast, saturation and hue, each with probability 0.5, for RGB uint8 images.

    The ranges are the customary ones: +-32 of 128 grey levels, factors 0.5 to 1.5, +-36 degrees.
    """
    return [
        T.RandomApply(augmentation, prob=0.5)
        for augmentation in (
            T.RandomBrightness(0.75, 1.25),
            T.RandomContrast(0.5, 1.5),
            T.RandomSaturation(0.5, 1.5),
            RandomHue(36),
        )
    ]
