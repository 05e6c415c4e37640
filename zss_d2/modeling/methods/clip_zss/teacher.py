"""CLIP's frozen image tower as the teacher: part of the training, never of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.clip import ImageEncoder, ImageFeatures
from zss_d2.errors import ZssError

Module = TypeVar("Module", bound=nn.Module)


class FrozenReference(nn.Module, Generic[Module]):
    """Holds a frozen module that moves with its parent but is not among its parameters or state."""

    def __init__(self, module: Module):
        super().__init__()
        # nn.Module does not look into tuples.
        self._held = (module.requires_grad_(False).eval(),)

    @property
    def module(self) -> Module:
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenReference:
        self.module._apply(fn)
        return super()._apply(fn, recurse)


class Teacher(nn.Module):
    """The image tower, with its own normalisation and input size, without gradient."""

    def __init__(
        self,
        tower: ImageEncoder,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        student_mean: Sequence[float],
        student_std: Sequence[float],
        size: int = 0,
    ):
        """
        Args:
            pixel_mean, pixel_std: what the tower expects; RGB, 0..255.
            student_mean, student_std: what the images that come in are normalised by.
            size: side of its square input, px; 0: as the images, to the next multiple of the patch.

        Raises:
            ZssError: a size that is no multiple of the patch.
        """
        super().__init__()
        patch = tower.patch_size[0]
        if size % patch:
            raise ZssError(
                f"MODEL.CLIP_ZSS.TEACHER_SIZE is {size}, no multiple of the patch, {patch}; use "
                f"{max(patch, round(size / patch) * patch)}, or 0"
            )
        self.tower = FrozenReference(tower)
        self.size = size
        mean, std, old_mean, old_std = (
            torch.tensor(x).view(-1, 1, 1)
            for x in (pixel_mean, pixel_std, student_mean, student_std)
        )
        self.register_buffer("scale", old_std / std, persistent=False)
        self.register_buffer("shift", (old_mean - mean) / std, persistent=False)
        self.register_buffer("black", -mean / std, persistent=False)
        self.register_buffer("white", (255 - mean) / std, persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """The student's normalised images (B, 3, H, W) as the tower expects them."""
        return images * self.scale + self.shift

    @torch.no_grad()
    def forward(self, images: Tensor) -> ImageFeatures:
        """The student's normalised images (B, 3, H, W) -> CLS and dense tokens."""
        patch = self.tower.module.patch_size
        if self.size:
            size = [self.size, self.size]
        else:
            size = [s + -s % p for s, p in zip(images.shape[2:], patch, strict=True)]
        images = self.normalised(images)
        if list(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.tower.module(images)
