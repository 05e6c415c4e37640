"""Transforms that fvcore does not have."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import Transform
from PIL import Image

_TORCH_MODES = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}


class ResizeTransform(Transform):
    """Resize from (h, w) to (new_h, new_w); label masks always take the nearest value.

    Args:
        interp: a PIL resampling filter, bilinear by default.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        interp = Image.BILINEAR if interp is None else interp
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize (h, w) or (h, w, C): uint8 with PIL, which antialiases, others in torch."""
        assert img.shape[:2] == (self.h, self.w), f"{img.shape} is not {self.h} x {self.w}"
        interp = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            single = img.ndim == 3 and img.shape[2] == 1
            picture = Image.fromarray(img[:, :, 0] if single else img)
            resized = np.asarray(picture.resize((self.new_w, self.new_h), interp))
            return resized[:, :, None] if single else resized
        planes = torch.from_numpy(np.ascontiguousarray(img)).reshape(self.h, self.w, -1)
        mode = _TORCH_MODES[interp]
        resized = F.interpolate(
            planes.permute(2, 0, 1)[None],
            (self.new_h, self.new_w),
            mode=mode,
            align_corners=None if mode == "nearest" else False,
        )
        return resized[0].permute(1, 2, 0).numpy().reshape(self.new_h, self.new_w, *img.shape[2:])

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points (N, 2) in x, y order."""
        return coords * np.array([self.new_w / self.w, self.new_h / self.h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> ResizeTransform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
