"""Containers passed to models."""

from __future__ import annotations

import torch
from torch.nn import functional as F


class ImageList:
    """Images of several sizes, padded to one tensor (N, ..., H, W) and their (height, width)."""

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(
        tensors: list[torch.Tensor], size_divisibility: int = 0, pad_value: float = 0.0
    ) -> ImageList:
        """Pad images (..., h, w) at the bottom and right to a common size and stack them.

        Both sides become multiples of ``size_divisibility``; 0 or 1: no such demand.
        """
        assert len(tensors) > 0, "an ImageList needs at least one image"
        leading = {image.shape[:-2] for image in tensors}
        assert len(leading) == 1, f"images differ before height and width: {leading}"
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        divisor = max(size_divisibility, 1)
        height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
        padded = [
            F.pad(image, (0, width - w, 0, height - h), value=pad_value)
            for image, (h, w) in zip(tensors, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes)
