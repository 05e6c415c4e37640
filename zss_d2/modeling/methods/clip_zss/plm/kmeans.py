"""Spherical K-Means on dense tokens, for all images of a batch at once (PLM)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Clusters(NamedTuple):
    """Clusters of the N tokens of each image."""

    centroids: Tensor  # (B, M, C), unit norm
    assignment: Tensor  # (B, N), 0..M-1
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


def cosine_kmeans(tokens: Tensor, seeds: Tensor, iterations: int) -> Clusters:
    """K-Means under cosine similarity; the sum of cosines to the own centroid never falls.

    A centroid is the direction of the mean of its tokens. An empty cluster keeps its centroid, so
    it may win tokens later. Of equally near centroids the first one wins.

    Args:
        tokens: (B, N, C), unit norm.
        seeds: (B, M, C), unit norm.
        iterations: updates of the centroids.

    Returns:
        The last centroids and the tokens' assignment to them.
    """
    centroids = seeds
    for _ in range(iterations):
        centroids = _update(tokens, centroids, assign(tokens, centroids))
    assignment = assign(tokens, centroids)
    return Clusters(centroids, assignment, count(assignment, centroids.shape[1]))


def assign(tokens: Tensor, centroids: Tensor) -> Tensor:
    """Index (B, N) of the nearest of the centroids (B, M, C) for tokens (B, N, C)."""
    return (tokens @ centroids.transpose(1, 2)).argmax(dim=2)


def count(assignment: Tensor, number: int) -> Tensor:
    """How often each of 0..number-1 occurs in every row (B, N) -> (B, number), int64."""
    counts = assignment.new_zeros(len(assignment), number)
    return counts.scatter_add_(1, assignment, torch.ones_like(assignment))


def sum_by_index(values: Tensor, index: Tensor, number: int) -> Tensor:
    """Sum the vectors (B, N, C) that share an index (B, N) in 0..number-1 -> (B, number, C)."""
    # One table for the batch: index_add_ is several times as fast as scatter_add_ by columns.
    first = number * torch.arange(len(index), device=index.device)[:, None]
    sums = values.new_zeros(len(values) * number, values.shape[2])
    sums.index_add_(0, (index + first).flatten(), values.flatten(0, 1))
    return sums.unflatten(0, (len(values), number))


def _update(tokens: Tensor, centroids: Tensor, assignment: Tensor) -> Tensor:
    sums = sum_by_index(tokens, assignment, centroids.shape[1])
    # Tokens that cancel each other have no mean direction; their cluster stays as well.
    norm = sums.norm(dim=2, keepdim=True)
    return torch.where(norm > 1e-6, sums / norm.clamp(min=1e-6), centroids)
