"""CLIP's CLS token of every region, and its distillation into the student (C2S)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.clip import ImageFeatures
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.local.views import (
    LargestRegions,
    largest_regions,
    region_views,
)
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import FusedLabels, resize_labels
from zss_d2.modeling.methods.clip_zss.teacher import Teacher


class RegionTokens(NamedTuple):
    """C_l: what CLIP sees in each of the regions of F."""

    cls: Tensor  # (B, R, C), not normalised; zeros in a slot without a region
    ids: Tensor  # (B, R), ids of F
    present: Tensor  # (B, R) bool


class LocalSettings(NamedTuple):
    """How regions get their CLS tokens; see `defaults.yaml`."""

    cls: str = "passes"
    fill: str = "mean"
    tight: bool = False
    size: int = 0
    max_regions: int = 8
    blocks: int = 1


class RegionTeacher:
    """CLS tokens of the regions of F, from the frozen tower of a teacher."""

    def __init__(self, teacher: Teacher, settings: LocalSettings):
        """
        Raises:
            ZssError: a size that is no multiple of the patch, or more blocks than the tower has.
        """
        self.settings = settings
        tower, prefix = teacher.tower.module, "MODEL.CLIP_ZSS.LOCAL"
        patch, layers = tower.patch_size[0], tower.visual.transformer.layers
        if settings.cls == "passes" and settings.size % patch:
            raise ZssError(
                f"{prefix}.SIZE is {settings.size}, no multiple of the patch, {patch}; use "
                f"{max(patch, round(settings.size / patch) * patch)}, or 0"
            )
        if settings.cls == "attention":
            if settings.blocks > layers:
                raise ZssError(
                    f"{prefix}.BLOCKS is {settings.blocks}, but the tower has {layers} blocks"
                )
            tower.kept_blocks = settings.blocks

    @torch.no_grad()
    def tokens(
        self,
        teacher: Teacher,
        seen: ImageFeatures,
        images: Tensor,
        fused: FusedLabels,
        targets: Tensor,
        inside: Tensor,
        number: int,
        networks: Callable[[], AbstractContextManager[Any]],
    ) -> RegionTokens:
        """CLS tokens of the largest regions of each image.

        Args:
            teacher: of the tower and the normalisation.
            seen: what it made of the whole images.
            images: the student's, (B, 3, H, W), normalised.
            fused: F.
            targets, inside: (B, H, W), see `fuse_labels`; at the size of the images.
            number: of ids in F.
            networks: the context that networks are called in.
        """
        regions = largest_regions(fused.coarse, number, self.settings.max_regions)
        if self.settings.cls == "attention":
            labels = fused.at(targets, inside, seen.dense.shape[2:])
            masks = masks_of(labels, regions).flatten(2)  # (B, R, h * w)
            with networks():
                cls = teacher.tower.module.region_cls(seen.entered, masks)
            present = masks.any(dim=2)
            return RegionTokens(cls.float() * present[..., None], regions.ids, present)
        return self._by_passes(teacher, images, fused, targets, inside, regions, networks)

    def _by_passes(
        self,
        teacher: Teacher,
        images: Tensor,
        fused: FusedLabels,
        targets: Tensor,
        inside: Tensor,
        regions: LargestRegions,
        networks: Callable[[], AbstractContextManager[Any]],
    ) -> RegionTokens:
        settings, patch = self.settings, teacher.tower.module.patch_size[0]
        size = settings.size or max(side + -side % patch for side in images.shape[2:])
        shown = teacher.normalised(images)
        colour = fill_colour(settings.fill, teacher, shown, inside)
        if not settings.tight and shown.shape[2:] != (size, size):
            shown = F.interpolate(shown, [size, size], mode="bilinear", antialias=True)
        masks = masks_of(fused.at(targets, inside, shown.shape[2:]), regions)
        present = masks.flatten(2).any(dim=2)
        owner, slot = present.nonzero(as_tuple=True)
        cls = images.new_zeros(*present.shape, teacher.tower.module.embed_dim)
        if len(owner):
            views = region_views(
                shown, masks[owner, slot], owner, colour, size=size, tight=settings.tight
            )
            with networks():
                found = teacher.tower.module.cls(views)
            cls[owner, slot] = found.to(cls)
        return RegionTokens(cls, regions.ids, present)


def masks_of(labels: Tensor, regions: LargestRegions) -> Tensor:
    """Labels (B, h, w) -> which pixels are of each region, (B, R, h, w) bool."""
    own = labels[:, None] == regions.ids[..., None, None]
    return own & regions.present[..., None, None]


def fill_colour(name: str, teacher: Teacher, images: Tensor, inside: Tensor) -> Tensor:
    """Colours (B, 3) of what is outside of a region.

    Args:
        name: "mean", the mean colour that the tower's statistics state; "image", that of the image;
            "black" or "white".
        images: (B, 3, H, W), as the tower expects them.
        inside: (B, H, W), False in the padding.
    """
    number = len(images)
    if name == "image":
        weights = resize_labels(inside, images.shape[2:]).to(images)[:, None]
        return (images * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp(min=1)
    if name == "mean":
        return images.new_zeros(number, 3)
    return getattr(teacher, name).flatten().expand(number, -1)


def local_info_nce(student: Tensor, teacher: Tensor, present: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each region's student feature, with the image's other regions as negatives.

    Equation 4 of C2S: -log softmax over r' of cos(F_l, C_l') / temperature at the own region.

    Args:
        student: F_l, (B, R, C).
        teacher: C_l, (B, R, C).
        present: (B, R) bool, slots that hold a region.

    Returns:
        scalar: the mean over an image's regions, and of that over the images. So the mean over
        parts of a batch of equal size is that of the whole. An image with no region or only one
        has nothing to tell apart and counts 0.
    """
    a, b = (F.normalize(x.float(), dim=2) for x in (student, teacher))
    logits = a @ b.transpose(1, 2) / temperature  # (B, R, R)
    # Finite, so that an image without any region gives no NaN.
    logits = logits.masked_fill(~present[:, None], -1e4)
    own = -logits.log_softmax(dim=2).diagonal(dim1=1, dim2=2)  # (B, R)
    return ((own * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


def at_ids(values: Tensor, ids: Tensor) -> Tensor:
    """Rows (B, R, C) of values (B, N, C) at ids (B, R)."""
    return values.gather(1, ids[..., None].expand(-1, -1, values.shape[2]))
