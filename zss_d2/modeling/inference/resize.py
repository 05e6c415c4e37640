"""Other sizes of images, logits and scores, all bilinear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor
from torch.nn import functional as F

# Rows of a large map that are made at a time.
ROWS_AT_ONCE = 64


def rescaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width, px, at ``scale`` times a size (H, W)."""
    height, width = (max(1, round(scale * side)) for side in size)
    return height, width


def rescale(images: Tensor, scale: float, antialias: bool) -> Tensor:
    """Images (B, 3, H, W) at ``scale`` times their size."""
    if scale == 1:
        return images
    size = rescaled_size(images.shape[-2:], scale)
    return F.interpolate(images, size, mode="bilinear", antialias=antialias)


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (B, K, h, w) at the size (H, W), in single precision."""
    return F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores (K, h, w) at another size; the same ones where it is no other."""
    present = tuple(scores.shape[-2:])
    return scores if present == size else sem_seg_postprocess(scores, present, *size)


def resize_rows(scores: Tensor, size: Sequence[int], rows: slice) -> Tensor:
    """Some rows of maps (B, K, h, w) resized to ``size`` (H, W).

    Equals that part of ``interpolate(scores, size, mode="bilinear")`` up to rounding.
    """
    height = scores.shape[-2]
    position = torch.arange(rows.start, rows.stop, device=scores.device, dtype=torch.float32)
    position = ((position + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    upper = position.long().clamp(max=height - 1)
    lower = (upper + 1).clamp(max=height - 1)
    weight = (position - upper).to(scores.dtype)[:, None]
    blended = scores[..., upper, :] * (1 - weight) + scores[..., lower, :] * weight
    target = rows.stop - rows.start, size[1]
    return F.interpolate(blended, target, mode="bilinear", align_corners=False)


def row_slices(height: int) -> Iterator[slice]:
    """Slices of `ROWS_AT_ONCE` rows that cover ``height`` rows."""
    for start in range(0, height, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, height))
