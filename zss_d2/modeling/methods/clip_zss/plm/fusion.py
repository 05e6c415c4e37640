"""From clusters of several scales to one set of regions per image (PLM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.kmeans import (
    Clusters,
    cosine_kmeans,
    count,
    window_seeds,
)
from zss_d2.modeling.precision import in_single_precision


class Regions(NamedTuple):
    """A partition of the token grid of each image; unused ids are empty."""

    labels: Tensor  # (B, h, w), 0..M-1
    centroids: Tensor  # (B, M, C), unit norm
    sizes: Tensor  # (B, M), tokens


def fuse_clusters(
    centroids: Tensor, counts: Tensor, scales: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Merge clusters of different scales that are alike, greedily; each is used once.

    In the order given, every cluster that is not used yet leads a group and takes in all unused
    clusters of *other* scales whose cosine to it is above the threshold.

    Args:
        centroids: (B, M, C), unit norm.
        counts: (B, M), tokens of each cluster; empty ones join no group.
        scales: (M,), scale each cluster belongs to.
        threshold: lambda of the paper.

    Returns:
        The group (B, M) of each cluster, named by its leader, -1 for empty ones; and the direction
        (B, M, C) of the group's mean token, zero where there is no such group.
    """
    number = centroids.shape[1]
    alike = centroids @ centroids.transpose(1, 2) > threshold  # (B, M, M)
    alike &= scales[:, None] != scales
    alike |= torch.eye(number, dtype=torch.bool, device=centroids.device)
    group = torch.full_like(counts, -1)
    free = counts > 0
    for leader in range(number):
        taken = alike[:, leader] & free & free[:, leader, None]
        group = group.masked_fill(taken, leader)
        free &= ~taken
    members = F.one_hot(group.clamp(min=0), number) * (counts * (group >= 0))[..., None]
    sums = members.to(centroids).transpose(1, 2) @ centroids  # (B, M, C)
    return group, F.normalize(sums, dim=2)


@in_single_precision
def multi_scale_regions(
    dense: Tensor, windows: Sequence[int], iterations: int, threshold: float
) -> Regions:
    """K-Means for every window size, largest first, fusion, and the nearest group for every token.

    That a token joins the nearest fused centroid makes a partition of the grid; how the paper does
    it is unknown.

    Args:
        dense: tokens (B, C, h, w).
        windows: sides of the seed windows, tokens.
        iterations: of K-Means.
        threshold: of `fuse_clusters`.
    """
    tokens = F.normalize(dense.float(), dim=1)
    clusters = clusters_per_scale(tokens, windows, iterations)
    flat = _flatten(tokens)
    centroids = torch.cat([c.centroids for c in clusters], dim=1)
    counts = torch.cat([c.counts for c in clusters], dim=1)
    scales = torch.cat(
        [counts.new_full((c.counts.shape[1],), index) for index, c in enumerate(clusters)]
    )
    _, fused = fuse_clusters(centroids, counts, scales, threshold)
    # An absent group must lose against every real one, whose cosine may be negative.
    absent = fused.abs().amax(dim=2) == 0
    similarity = (flat @ fused.transpose(1, 2)).masked_fill(absent[:, None], -2)  # (B, N, M)
    labels = similarity.argmax(dim=2)
    sizes = count(labels, fused.shape[1])
    return Regions(labels.unflatten(1, dense.shape[2:]), fused, sizes)


def clusters_per_scale(tokens: Tensor, windows: Sequence[int], iterations: int) -> list[Clusters]:
    """K-Means on unit-norm tokens (B, C, h, w) for every window size, largest first."""
    flat = _flatten(tokens)
    return [
        cosine_kmeans(flat, window_seeds(tokens, window), iterations)
        for window in sorted(windows, reverse=True)
    ]


def _flatten(tokens: Tensor) -> Tensor:
    # K-Means reads the tokens again and again; in one piece that takes a fifth less time.
    return tokens.flatten(2).transpose(1, 2).contiguous()
