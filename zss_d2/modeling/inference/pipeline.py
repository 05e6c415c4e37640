"""Whole-image and sliding-window inference, and the label of every pixel, in bounded memory.

Score maps of many classes at the size of a photo are the largest thing that inference holds: 171
classes at 4000 x 3000 px are 8 GB. Functions here therefore give such maps in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

ScoreFunction = Callable[[Tensor], Tensor]
# Where a piece lies (rows, columns) and its scores (K, rows, columns).
Piece = tuple[slice, slice, Tensor]

# Rows of a large map that are made at a time.
ROWS_AT_ONCE = 64
# So many pixels that scores of one class, the best ones so far and their labels stay in the cache.
TILE_PX = 32768
NAN_REMEDY = "the weights are damaged or SOLVER.AMP overflowed; test an earlier checkpoint"


@dataclass(frozen=True)
class InferenceProtocol:
    """How scores are made from an image; every field changes results, but for the last two.

    Args:
        slide_crop, slide_stride: sliding windows, px of the resized image; None: whole image.
        flip: average with the scores of the mirrored image.
        scales: factors on the resized image, whose scores are averaged.
        antialias: when the image is scaled by them.
        seen_bias: subtracted from the scores of the classes that were trained.
        slide_batch: windows that go through the network at once.
        max_scores: numbers in a score map (K, H, W) above which only its labels are made.
    """

    slide_crop: int | None = None
    slide_stride: int | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    antialias: bool = True
    seen_bias: float = 0.0
    slide_batch: int = 1
    max_scores: int = 1 << 26

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InferenceProtocol:
        """What ``cfg.TEST`` says."""
        sliding = cfg.TEST.SLIDE.ENABLED
        return cls(
            slide_crop=cfg.TEST.SLIDE.CROP if sliding else None,
            slide_stride=cfg.TEST.SLIDE.STRIDE if sliding else None,
            flip=cfg.TEST.FLIP,
            scales=tuple(cfg.TEST.SCALES),
            antialias=cfg.INPUT.ANTIALIAS,
            seen_bias=cfg.TEST.SEEN_BIAS,
            slide_batch=cfg.TEST.SLIDE.BATCH,
            max_scores=cfg.TEST.MAX_SCORES_MIB * 2**20 // 4,
        )


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Starts of windows of ``crop`` px that cover ``size`` px; the last one ends at the border."""
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


def slide(score: ScoreFunction, image: Tensor, crop: int, stride: int, batch: int = 1) -> Tensor:
    """Average the scores of overlapping windows.

    Args:
        score: (B, 3, h, w) -> (B, K, h, w).
        image: (1, 3, H, W).
        crop: window side, px; a smaller image is one window.
        stride: step, px.
        batch: windows given to ``score`` at once.

    Returns:
        (1, K, H, W), each pixel the mean over the windows that hold it.
    """
    whole = None
    for rows, columns, scores in slide_pieces(score, image, crop, stride, batch):
        if scores.shape[1:] == image.shape[2:]:
            return scores[None]
        if whole is None:
            whole = scores.new_empty(1, len(scores), *image.shape[-2:])
        whole[..., rows, columns] = scores
    return whole


def slide_pieces(
    score: ScoreFunction, image: Tensor, crop: int, stride: int, batch: int = 1
) -> Iterator[Piece]:
    """What `slide` returns, in pieces that tile the image; arguments as there.

    A piece is given as soon as no later window reaches it. Held at a time are a batch of windows
    and what one row of windows shares with the next.
    """
    height, width = image.shape[-2:]
    tops, lefts = window_starts(height, crop, stride), window_starts(width, crop, stride)
    if len(tops) == len(lefts) == 1:
        yield slice(0, height), slice(0, width), score(image)[0]
        return
    windows = _window_scores(score, image, crop, list(product(tops, lefts)), batch)
    row_counts = _coverage(tops, crop, height).to(image.device)
    column_counts = _coverage(lefts, crop, width).to(image.device)
    above = None  # sums (K, rows shared with the windows above, W)
    for top, next_top in pairwise([*tops, height]):
        rows = next_top - top
        below = before = None  # before: sums (K, h, columns shared with the window before)
        for left, next_left in pairwise([*lefts, width]):
            columns = next_left - left
            total = next(windows)
            known = 0
            if before is not None:
                known = before.shape[2]
                total[..., :known] += before
            if above is not None:
                total[:, : above.shape[1], known:] += above[
                    ..., left + known : left + total.shape[2]
                ]
            if rows < total.shape[1]:
                if below is None:
                    below = total.new_empty(len(total), total.shape[1] - rows, width)
                below[..., left:next_left] = total[:, rows:, :columns]
            before = total[..., columns:]
            count = row_counts[top:next_top, None] * column_counts[left:next_left]
            yield slice(top, next_top), slice(left, next_left), total[:, :rows, :columns] / count
        above = below


def _window_scores(
    score: ScoreFunction, image: Tensor, crop: int, corners: list[tuple[int, int]], batch: int
) -> Iterator[Tensor]:
    """Scores (K, h, w) of the windows with these upper left corners; the caller may change them."""
    for first in range(0, len(corners), batch):
        views = [image[..., y : y + crop, x : x + crop] for y, x in corners[first : first + batch]]
        for scores in score(torch.cat(views)).unbind():
            yield scores.clone()


def _coverage(starts: list[int], crop: int, size: int) -> Tensor:
    """How many windows hold each of ``size`` positions."""
    counts = torch.zeros(size, dtype=torch.int64)
    for start in starts:
        counts[start : start + crop] += 1
    return counts


def resize_rows(scores: Tensor, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` of maps (B, K, h, w) resized bilinearly to ``size`` (H, W).

    Equals that part of ``interpolate(scores, size, mode="bilinear")`` up to rounding.
    """
    height = scores.shape[-2]
    position = torch.arange(start, stop, device=scores.device, dtype=torch.float32)
    position = ((position + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    upper = position.long().clamp(max=height - 1)
    lower = (upper + 1).clamp(max=height - 1)
    weight = (position - upper).to(scores.dtype)[:, None]
    rows = scores[..., upper, :] * (1 - weight) + scores[..., lower, :] * weight
    return F.interpolate(rows, (stop - start, size[1]), mode="bilinear", align_corners=False)


def row_slices(height: int) -> Iterator[slice]:
    """Slices of `ROWS_AT_ONCE` rows that cover ``height`` rows."""
    for start in range(0, height, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, height))


def resized_pieces(scores: Tensor, size: tuple[int, int]) -> Iterator[Piece]:
    """Scores (K, h, w) resized bilinearly to ``size`` (H, W), in pieces that tile the result."""
    for rows in row_slices(size[0]):
        yield rows, slice(0, size[1]), resize_rows(scores[None], size, rows.start, rows.stop)[0]


def argmax_labels(scores: Tensor | LabelsOnly) -> Tensor:
    """The class with the highest score; of equal ones the first.

    Args:
        scores: (K, H, W).

    Returns:
        (H, W) on the same device, uint8 or, for more than 256 classes, int32.

    Raises:
        ValueError: a score is NaN.
    """
    if isinstance(scores, LabelsOnly):
        return scores.labels
    few = len(scores) <= 256
    if scores.device.type != "cpu":
        best, labels = scores.max(dim=0)
        _refuse_nan(bool(best.isnan().any()))
        return labels.to(torch.uint8 if few else torch.int32)
    # On a CPU, torch.argmax over the first dimension jumps through memory; class by class over a
    # tile that stays in the cache is several times as fast.
    flat = scores.detach().reshape(len(scores), -1)
    labels = np.zeros(flat.shape[1], np.uint8 if few else np.int32)
    for first in range(0, flat.shape[1], TILE_PX):
        tile = flat[:, first : first + TILE_PX]
        if tile.dtype not in (torch.float32, torch.float64):
            tile = tile.float()
        _label_tile(tile.numpy(), labels[first : first + TILE_PX])
    return torch.from_numpy(labels).view(scores.shape[1:])


def _label_tile(scores: np.ndarray, labels: np.ndarray) -> None:
    """Index of the largest of the scores (K, N) into ``labels`` (N,), which are zero."""
    best = scores[0].copy()
    better = np.empty(best.shape, bool)
    as_number = better.view(np.uint8)
    candidate = np.empty_like(labels)
    for index in range(1, len(scores)):
        np.greater(scores[index], best, out=better)
        np.maximum(best, scores[index], out=best)
        # Later indices are larger, so the maximum of the candidates is the last better one.
        np.multiply(as_number, labels.dtype.type(index), out=candidate)
        np.maximum(labels, candidate, out=labels)
    _refuse_nan(bool(np.isnan(best).any()))


def _refuse_nan(found: bool) -> None:
    if found:
        raise ValueError("the scores hold NaN, so no class is the best one")


class LabelsOnly:
    """Stands for scores (K, H, W) that would be too large: knows their shape and their argmax."""

    def __init__(self, labels: Tensor, num_classes: int):
        """
        Args:
            labels: (H, W), the best class of every pixel.
            num_classes: K.
        """
        self.labels = labels
        self.shape = torch.Size((num_classes, *labels.shape))
        self.device = labels.device

    def argmax(self, dim: int = 0) -> Tensor:
        """Labels (H, W), int64 as of a tensor.

        Raises:
            ValueError: another dimension than the classes'.
        """
        if dim not in (0, -3):
            raise ValueError(f"only the argmax over classes (dim 0) is known, not over dim {dim}")
        return self.labels.long()
