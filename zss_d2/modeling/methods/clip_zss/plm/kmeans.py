"""Spherical K-Means on dense tokens, for all images of a batch at once (PLM)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Clusters(NamedTuple):
    """Clusters of the N tokens of each image."""

    centroids: Tensor  # (B, M, C), unit norm
    assignment: Tensor  # (B, N), 0..M-1; M for a token that takes no part
    counts: Tensor  # (B, M), tokens of each cluster; 0: empty


def window_seeds(tokens: Tensor, window: int) -> Tensor:
    """Mean token of every window x window patch of the grid, at steps of half a window.

    Windows start at 0, window / 2, window, ... and lie inside the grid (stated in Split Matching,
    arXiv 2505.05023, by the same group). A window larger than the grid is cut to it.

    Args:
        tokens: (B, C, h, w), unit norm along C.

    Returns:
        (B, M, C), unit norm.
    """
    size = [min(window, side) for side in tokens.shape[2:]]
    means = F.avg_pool2d(tokens, size, stride=max(1, window // 2))
    return F.normalize(means.flatten(2).transpose(1, 2), dim=2)


def unannotated_seeds(tokens: Tensor, window: int, unannotated: Tensor) -> Tensor:
    """Mean of every window x window patch in which annotated tokens count as 0 (C2S, equation 1).

    The sum is divided by window^2 however many tokens are unannotated. Windows start at 0,
    window / 2, window, ..., rounded, and at the last place where one fits. A window larger than the
    grid is cut to it.

    Args:
        tokens: (B, C, h, w), unit norm along C.
        unannotated: (B, h, w) bool.

    Returns:
        (B, M, C), not normalised; all zeros where a window has no unannotated token.
    """
    rows, columns = (_window_means(side, window, tokens) for side in tokens.shape[2:])
    kept = tokens * unannotated[:, None]
    # The mean over a rectangle is one over rows of those over columns.
    return (rows @ kept @ columns.T).flatten(2).transpose(1, 2)


def _window_means(side: int, window: int, like: Tensor) -> Tensor:
    """Weights (number of windows, side) that average along one direction of the grid."""
    size = min(window, side)
    step, last = max(1.0, window / 2), side - size
    # Made on the device, so that nothing is copied there in every step.
    number = math.ceil(last / step) + 1
    start = (torch.arange(number, device=like.device) * step + 0.5).floor().clamp(max=last)
    place = torch.arange(side, device=like.device)
    inside = (place >= start[:, None]) & (place < start[:, None] + size)
    return inside.to(like) / size


def cosine_kmeans(
    tokens: Tensor, seeds: Tensor, iterations: int, members: Tensor | None = None
) -> Clusters:
    """K-Means under cosine similarity; the sum of cosines to the own centroid never falls.

    A centroid is the direction of the mean of its tokens. An empty cluster keeps its centroid, so
    it may win tokens later. Of equally near centroids the first one wins.

    Args:
        tokens: (B, N, C), unit norm.
        seeds: (B, M, C), unit norm; with ``members`` also zero, for a cluster that stays empty.
        iterations: updates of the centroids.
        members: (B, N) bool, the tokens that take part; None: all.

    Returns:
        The last centroids and the tokens' assignment to them.
    """
    centroids = seeds
    for _ in range(iterations):
        centroids = _update(tokens, centroids, assign(tokens, centroids, members), members)
    assignment = assign(tokens, centroids, members)
    return Clusters(centroids, assignment, sizes_of(assignment, centroids.shape[1], members))


def assign(tokens: Tensor, centroids: Tensor, members: Tensor | None = None) -> Tensor:
    """Index (B, N) of the nearest of the centroids (B, M, C) for tokens (B, N, C).

    With ``members``, see `cosine_kmeans`, it is M for other tokens, and no centroid 0 is nearest.
    """
    similarity = tokens @ centroids.transpose(1, 2)  # (B, N, M)
    if members is None:
        return similarity.argmax(dim=2)
    absent = centroids.abs().amax(dim=2) == 0
    # Below every cosine.
    nearest = similarity.masked_fill_(absent[:, None], -2).argmax(dim=2)
    return nearest.where(members, centroids.shape[1])


def count(assignment: Tensor, number: int) -> Tensor:
    """How often each of 0..number-1 occurs in every row (B, N) -> (B, number), int64."""
    counts = assignment.new_zeros(len(assignment), number)
    return counts.scatter_add_(1, assignment, torch.ones_like(assignment))


def sizes_of(assignment: Tensor, number: int, members: Tensor | None) -> Tensor:
    """Tokens (B, number) of each cluster."""
    if members is None:
        return count(assignment, number)
    return count(assignment, number + 1)[:, :number]


def sum_by_index(values: Tensor, index: Tensor, number: int) -> Tensor:
    """Sum the vectors (B, N, C) that share an index (B, N) in 0..number-1 -> (B, number, C)."""
    # One table for the batch: index_add_ is several times as fast as scatter_add_ by columns.
    first = number * torch.arange(len(index), device=index.device)[:, None]
    sums = values.new_zeros(len(values) * number, values.shape[2])
    sums.index_add_(0, (index + first).flatten(), values.flatten(0, 1))
    return sums.unflatten(0, (len(values), number))


def _update(
    tokens: Tensor, centroids: Tensor, assignment: Tensor, members: Tensor | None
) -> Tensor:
    number = centroids.shape[1]
    rows = number if members is None else number + 1  # the last one of those without a part
    sums = sum_by_index(tokens, assignment, rows)[:, :number]
    # Tokens that cancel each other have no mean direction; their cluster stays as well.
    norm = sums.norm(dim=2, keepdim=True)
    return torch.where(norm > 1e-6, sums / norm.clamp(min=1e-6), centroids)
