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

# Steps of scores that the shares of `least_bins` are counted in.
BINS = 1000


class Guess(NamedTuple):
    """The best candidate of every pixel, (B, H, W)."""

    labels: Tensor  # int64, an index among all names
    scores: Tensor  # of that class, 0..1; of several views the mean
    agreed: Tensor  # bool: it is the best one in all views


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
    views: Sequence[Tensor],
    size: Sequence[int],
    activate: Callable[[Tensor], Tensor],
    first: int,
) -> Guess:
    """The candidate of the highest score at every pixel in the first view; of equal ones the first.

    Logits are enlarged bilinearly, as the losses do, and activated over all names, in chunks of
    rows: the maps of all classes at the size of the image are never there as a whole.

    Args:
        views: logits (B, K, h, w) of all names, single precision, one map or more; each covers the
            whole of the images, whatever its h and w.
        size: (H, W).
        activate: logits (B, K, rows, W) -> scores in 0..1, perhaps in place.
        first: names from this one on are candidates.
    """
    batch, number = views[0].shape[:2]
    height, width = size
    upsamplings = [Upsampling(view.shape[2:], (height, width), view) for view in views]
    device = views[0].device
    labels = torch.empty(batch, height, width, dtype=torch.int64, device=device)
    scores = views[0].new_empty(batch, height, width)
    agreed = torch.ones(batch, height, width, dtype=torch.bool, device=device)
    row = number * width * views[0].element_size()  # bytes of an enlarged row, all names
    at_once = chunk_bytes(batch * height * row, device) // row
    for images, rows in blocks(batch, height, at_once):
        for view, (logits, upsampling) in enumerate(zip(views, upsamplings, strict=True)):
            some = logits[images]
            large = upsampling.enlarge(some.flatten(0, 1), rows).unflatten(0, some.shape[:2])
            best = activate(large)[:, first:].max(dim=1)
            if view == 0:
                labels[images, rows], scores[images, rows] = best.indices, best.values
            else:
                agreed[images, rows] &= best.indices == labels[images, rows]
                scores[images, rows] += best.values
    return Guess(labels + first, scores / len(views), agreed)


def fill(targets: Tensor, pixels: Tensor, guess: Guess, threshold: float) -> Tensor:
    """Targets (B, H, W) with pseudo labels at those ``pixels`` that all views agree on.

    Args:
        pixels: (B, H, W) bool, those that may get one.
        threshold: least score, 0..1.
    """
    kept = pixels & guess.agreed & (guess.scores >= threshold)
    return guess.labels.where(kept, targets)


def take(targets: Tensor, pixels: Tensor, labels: Tensor, first: int) -> Tensor:
    """Targets (B, H, W) with labels that were made before at those ``pixels`` that have one.

    Args:
        pixels: (B, H, W) bool, those that may get one.
        labels: (B, H, W), indices among all names, or the ignore label, which is none of them.
        first: those of names from this one on are taken.
    """
    return labels.where(pixels & (labels >= first), targets)


def score_bins(scores: Tensor) -> Tensor:
    """Which of the `BINS` equal parts of 0..1 scores are in, int64."""
    return (scores * BINS).long().clamp(0, BINS - 1)


def count_scores(guess: Guess, pixels: Tensor, number: int) -> Tensor:
    """How often every class was guessed with which score, at ``pixels`` that views agree on.

    Args:
        number: K, of names.

    Returns:
        (K, `BINS`) int64.
    """
    index = guess.labels * BINS + score_bins(guess.scores)
    index = index.where(pixels & guess.agreed, number * BINS).flatten()
    counts = torch.zeros(number * BINS + 1, dtype=torch.int64, device=index.device)
    counts.scatter_add_(0, index, torch.ones_like(index))
    return counts[:-1].view(number, BINS)


def least_bins(counts: Tensor, quantile: float) -> Tensor:
    """Of every class the bin from which on its scores are above the quantile.

    That is the first one up to which more than the share ``quantile`` of its pixels lie.

    Args:
        counts: (K, `BINS`), 0 or more; of a class without any, 0 is the result.
        quantile: 0..1.

    Returns:
        (K,) int64.
    """
    share = quantile * counts.sum(dim=1, keepdim=True)
    return (counts.cumsum(dim=1) <= share).sum(dim=1) * (counts.sum(dim=1) > 0)


def without_low(guess: Guess, least: Tensor) -> Guess:
    """The guess, where pixels whose score is below the bin of their class count as not agreed.

    Args:
        least: (K,), see `least_bins`.
    """
    high = score_bins(guess.scores) >= least[guess.labels]
    return guess._replace(agreed=guess.agreed & high)


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
