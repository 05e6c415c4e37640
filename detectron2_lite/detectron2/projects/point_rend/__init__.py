"""The colour augmentation that ships with the PointRend project."""

from __future__ import annotations

import random
from collections.abc import Callable

import cv2
import numpy as np
from fvcore.transforms.transform import Transform


class ColorAugSSDTransform(Transform):
    """SSD's brightness, contrast, saturation and hue, each changed with probability 1/2.

    Random numbers come from python's ``random``, anew at every image.

    Args:
        img_format: "RGB" or "BGR".
        brightness_delta: largest shift of all channels, in grey values.
        contrast_low, contrast_high: factor of all channels.
        saturation_low, saturation_high: factor of the saturation in HSV.
        hue_delta: largest shift of the hue, in units of 2 degrees.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ) -> None:
        super().__init__()
        assert img_format in ("BGR", "RGB"), img_format
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Distort an image (H, W, 3), uint8."""
        img = _maybe(self._brightness, img)
        steps = [self._saturation, self._hue]
        # Contrast comes before or after the colours.
        steps.insert(0 if random.randrange(2) else 2, self._contrast)
        for step in steps:
            img = _maybe(step, img)
        return img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def _brightness(self, img: np.ndarray) -> np.ndarray:
        return _affine(img, 1, random.uniform(-self.brightness_delta, self.brightness_delta))

    def _contrast(self, img: np.ndarray) -> np.ndarray:
        return _affine(img, random.uniform(self.contrast_low, self.contrast_high), 0)

    def _saturation(self, img: np.ndarray) -> np.ndarray:
        hsv = self._to_hsv(img)
        factor = random.uniform(self.saturation_low, self.saturation_high)
        hsv[..., 1] = _affine(hsv[..., 1], factor, 0)
        return self._from_hsv(hsv)

    def _hue(self, img: np.ndarray) -> np.ndarray:
        hsv = self._to_hsv(img)
        shift = random.randint(-self.hue_delta, self.hue_delta)
        hsv[..., 0] = (hsv[..., 0].astype(int) + shift) % 180
        return self._from_hsv(hsv)

    def _to_hsv(self, img: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(img, getattr(cv2, f"COLOR_{self.img_format}2HSV"))

    def _from_hsv(self, hsv: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(hsv, getattr(cv2, f"COLOR_HSV2{self.img_format}"))


def _maybe(step: Callable[[np.ndarray], np.ndarray], img: np.ndarray) -> np.ndarray:
    return step(img) if random.randrange(2) else img


def _affine(values: np.ndarray, factor: float, shift: float) -> np.ndarray:
    return np.clip(values.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)
