"""Photos of single regions: everything outside a region's mask is filled (C2S)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from zss_d2.modeling.methods.clip_zss.plm.kmeans import count


class LargestRegions(NamedTuple):
    """The largest masks of F of each image; slots without one come last."""

    ids: Tensor  # (B, R), ids of F
    present: Tensor  # (B, R) bool


def largest_regions(labels: Tensor, number: int, most: int) -> LargestRegions:
    """The masks of F that are the largest by area; of equally large ones those with the lowest ids.

    Args:
        labels: F, (B, h, w), 0..number - 1, or negative for no mask.
        number: of ids.
        most: R; fewer if there are fewer ids.
    """
    index = labels.flatten(1)
    areas = count(index.where(index >= 0, number), number + 1)[:, :number]
    areas, ids = areas.sort(dim=1, descending=True, stable=True)
    return LargestRegions(ids[:, :most], areas[:, :most] > 0)


def region_views(
    images: Tensor, masks: Tensor, owner: Tensor, fill: Tensor, *, size: int, tight: bool
) -> Tensor:
    """The photo of every region with what is outside of its mask filled.

    Args:
        images: (B, 3, H, W).
        masks: (N, H, W) bool, of N regions.
        owner: (N,), image that each region lies in.
        fill: colours (B, 3) of each image.
        size: side of the square result, px.
        tight: the smallest square around the mask alone is shown, and enlarged; what of it lies
            outside of the image is filled as well.

    Returns:
        (N, 3, size, size).
    """
    colour = fill[owner][..., None, None]
    # The fill is 0 while sizes change, so that no border of another colour comes in.
    views = (images[owner] - colour) * masks[:, None]
    if tight:
        rows = torch.arange(len(masks), device=masks.device)[:, None]
        boxes = torch.cat([rows.to(views), square_boxes(masks).to(views)], dim=1)
        # As many samples as there are pixels under a new one, so that small patterns stay.
        views = roi_align(views, boxes, size, aligned=True)
    elif views.shape[2:] != (size, size):
        views = F.interpolate(views, [size, size], mode="bilinear", antialias=True)
    return views + colour


def square_boxes(masks: Tensor) -> Tensor:
    """The smallest squares (N, 4) as x0, y0, x1, y1 px, around masks (N, H, W), centred on them.

    That of an empty mask is the image's first pixel.
    """
    ends = []
    for line in (masks.any(dim=1), masks.any(dim=2)):  # (N, W), (N, H)
        place = torch.arange(line.shape[1], device=line.device)
        first = place.where(line, line.shape[1]).amin(dim=1)
        last = place.where(line, -1).amax(dim=1) + 1
        empty = last == 0
        ends += [first.where(~empty, 0), last.where(~empty, 1)]
    x0, x1, y0, y1 = ends
    half = torch.maximum(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)
