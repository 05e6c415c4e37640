"""Pseudo labels as functions of logits, labels and masks of pixels; no state.

No function here sees which pixels are of unseen classes, but for the mask of `fill`, and what that
holds is stated where it is made (`eligible`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zss_d2.modeling.losses.chunks import blocks, chunk_bytes
from zss_d2.modeling.losses.upsampling import Upsampling


class Guess(NamedTuple):
    """The best candidate of every pixel, (B, H, W)."""

    labels: Tensor  # int64, an index among all names
    scores: Tensor  # of that class, 0..1


def eligible(
    targets: Tensor, sizes: Sequence[Sequence[int]], ignore_label: int, located: Tensor | None
) -> Tensor:
    """Pixels that may get a pseudo label: inside of their image, without a label.

    Args:
        targets: (B, H, W), padded at the right and bottom.
        sizes: height and width of every image without its padding.
        located: (B, H, W) bool, the only pixels that count; None: all.

    Returns:
        (B, H, W) bool.
    """
    inside = torch.zeros_like(targets, dtype=torch.bool)
    for image, (height, width) in zip(inside, sizes, strict=True):
        image[:height, :width] = True
    pixels = inside & (targets == ignore_label)
    return pixels if located is None else pixels & located


def best_candidate(
    logits: Tensor, size: Sequence[int], activate: Callable[[Tensor], Tensor], first: int
) -> Guess:
    """The candidate of the highest score at every pixel; of equal ones the first.

    Logits are enlarged bilinearly, as the losses do, and activated over all names, in chunks of
    rows: the maps of all classes at the size of the image are never there as a whole.

    Args:
        logits: (B, K, h, w) of all names, single precision.
        size: (H, W).
        activate: logits (B, K, rows, W) -> scores in 0..1, perhaps in place.
        first: names from this one on are candidates.
    """
    batch, number, *coarse = logits.shape
    height, width = size
    upsampling = Upsampling(coarse, (height, width), logits)
    labels = torch.empty(batch, height, width, dtype=torch.int64, device=logits.device)
    scores = logits.new_empty(batch, height, width)
    row = number * width * logits.element_size()  # bytes of an enlarged row, all names
    at_once = chunk_bytes(batch * height * row, logits.device) // row
    for images, rows in blocks(batch, height, at_once):
        some = logits[images]
        large = upsampling.enlarge(some.flatten(0, 1), rows).unflatten(0, some.shape[:2])
        best = activate(large)[:, first:].max(dim=1)
        scores[images, rows], labels[images, rows] = best.values, best.indices + first
    return Guess(labels, scores)


def fill(targets: Tensor, pixels: Tensor, guess: Guess, threshold: float) -> Tensor:
    """Targets (B, H, W) with pseudo labels at those ``pixels`` whose score is high enough.

    Args:
        pixels: (B, H, W) bool, those that may get one.
        threshold: least score, 0..1.
    """
    return guess.labels.where(pixels & (guess.scores >= threshold), targets)


def tally(targets: Tensor, filled: Tensor, pixels: Tensor, number: int) -> Tensor:
    """How many pixels might have got a pseudo label, and how many have got which.

    Args:
        targets, filled: (B, H, W) before and after `fill`.
        pixels: as there.
        number: K, of names.

    Returns:
        (1 + K,) int64 on their device.
    """
    index = filled.where(filled != targets, number).flatten()
    counts = torch.zeros(number + 1, dtype=torch.int64, device=targets.device)
    counts.scatter_add_(0, index, torch.ones_like(index))
    return torch.cat([pixels.sum()[None], counts[:number]])
