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
    sizes_of,
    unannotated_seeds,
    window_seeds,
)
from zss_d2.modeling.precision import in_single_precision

# Not the benchmark's ignore label, which may be as small as the number of classes and regions.
UNLABELLED = -1


class Regions(NamedTuple):
    """A partition of the token grid of each image, or of a part of it; unused ids are empty."""

    labels: Tensor  # (B, h, w), 0..M-1, or UNLABELLED for a token of no region
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
    dense: Tensor,
    windows: Sequence[int],
    iterations: int,
    threshold: float,
    unannotated: Tensor | None = None,
) -> Regions:
    """K-Means for every window size, largest first, fusion, and the nearest group for every token.

    That a token joins the nearest fused centroid makes a partition of the grid; how the papers do
    it is unknown. With ``unannotated`` this is C2S: only these tokens are seeds, are clustered and
    get a region, and clusters of one scale may merge as well.

    Args:
        dense: tokens (B, C, h, w).
        windows: sides of the seed windows, tokens.
        iterations: of K-Means.
        threshold: of `fuse_clusters`.
        unannotated: (B, h, w) bool, tokens without a seen label; None: all tokens are clustered
            (CLIP-ZSS).
    """
    tokens = F.normalize(dense.float(), dim=1)
    clusters = clusters_per_scale(tokens, windows, iterations, unannotated)
    members = None if unannotated is None else unannotated.flatten(1)
    flat = _flatten(tokens)
    centroids = torch.cat([c.centroids for c in clusters], dim=1)
    counts = torch.cat([c.counts for c in clusters], dim=1)
    if unannotated is None:
        numbers = [c.counts.shape[1] for c in clusters]
        scales = torch.cat([counts.new_full((n,), index) for index, n in enumerate(numbers)])
    else:
        scales = torch.arange(counts.shape[1], device=counts.device)
    _, fused = fuse_clusters(centroids, counts, scales, threshold)
    # An absent group must lose against every real one, whose cosine may be negative.
    absent = fused.abs().amax(dim=2) == 0
    similarity = (flat @ fused.transpose(1, 2)).masked_fill(absent[:, None], -2)  # (B, N, M)
    labels = similarity.argmax(dim=2)
    if members is not None:
        labels = labels.where(members, fused.shape[1])
    sizes = sizes_of(labels, fused.shape[1], members)
    if members is not None:
        labels = labels.where(members, UNLABELLED)
    return Regions(labels.unflatten(1, dense.shape[2:]), fused, sizes)


def clusters_per_scale(
    tokens: Tensor,
    windows: Sequence[int],
    iterations: int,
    unannotated: Tensor | None = None,
) -> list[Clusters]:
    """K-Means on unit-norm tokens (B, C, h, w) for every window size, largest first.

    Args:
        unannotated: see `multi_scale_regions`.
    """
    flat, largest_first = _flatten(tokens), sorted(windows, reverse=True)
    if unannotated is None:
        return [cosine_kmeans(flat, window_seeds(tokens, w), iterations) for w in largest_first]
    # By cosine only the direction of a seed counts, and not what it was divided by.
    seeds = [F.normalize(unannotated_seeds(tokens, w, unannotated), dim=2) for w in largest_first]
    return [cosine_kmeans(flat, seed, iterations, unannotated.flatten(1)) for seed in seeds]


def _flatten(tokens: Tensor) -> Tensor:
    # K-Means reads the tokens again and again; in one piece that takes a fifth less time.
    return tokens.flatten(2).transpose(1, 2).contiguous()
