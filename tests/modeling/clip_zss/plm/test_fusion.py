"""Greedy fusion of clusters against a plain reference, and the regions that come out."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.fusion import fuse_clusters, multi_scale_regions


def slow_fusion(centroids, counts, scales, threshold):
    """One image: the leader of every cluster, -1 for empty ones, and {leader: members}."""
    leader_of, groups = [-1] * len(counts), {}
    used = {m for m, size in enumerate(counts) if size == 0}
    for leader in range(len(counts)):
        if leader in used:
            continue
        groups[leader] = [leader] + [
            other
            for other in range(len(counts))
            if other not in used
            and scales[other] != scales[leader]
            and float(centroids[leader] @ centroids[other]) > threshold
        ]
        used |= set(groups[leader])
        for member in groups[leader]:
            leader_of[member] = leader
    return leader_of, groups


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 0.7, 1.0])
def test_fusion_equals_the_slow_reference_on_every_image(threshold):
    centroids = F.normalize(torch.randn(4, 12, 3, dtype=torch.float64), dim=2)
    counts = torch.randint(0, 4, (4, 12))
    scales = torch.tensor([0] * 3 + [1] * 4 + [2] * 5)
    group, fused = fuse_clusters(centroids, counts, scales, threshold)
    for image in range(4):
        leaders, groups = slow_fusion(
            centroids[image], counts[image].tolist(), scales.tolist(), threshold
        )
        assert group[image].tolist() == leaders
        for index in range(12):
            expected = torch.zeros(3, dtype=torch.float64)
            if index in groups:
                own = groups[index]
                expected = F.normalize(
                    sum(counts[image, m] * centroids[image, m] for m in own), dim=0
                )
            torch.testing.assert_close(fused[image, index], expected)


def test_only_clusters_of_different_scales_merge_and_each_only_once():
    east, north = [1.0, 0.0], [0.0, 1.0]
    centroids = torch.tensor([[east, east, east, north]])
    group, _ = fuse_clusters(
        centroids, torch.ones(1, 4, dtype=torch.long), torch.tensor([0, 0, 1, 1]), 0.9
    )
    # Cluster 2 goes to the first leader it resembles; cluster 1, of the same scale, stays alone.
    assert group.tolist() == [[0, 1, 0, 3]]


def two_halves() -> torch.Tensor:
    """Tokens (1, 2, 8, 8): one direction in the left half, another in the right."""
    dense = torch.zeros(1, 2, 8, 8)
    dense[:, 0, :, :4], dense[:, 1, :, 4:] = 3.0, 5.0
    return dense


def test_regions_of_two_halves():
    regions = multi_scale_regions(two_halves(), (2, 4), iterations=5, threshold=0.8)
    (left,), (right,) = regions.labels[..., :4].unique(), regions.labels[..., 4:].unique()
    assert left != right
    assert regions.sizes[0, left] == regions.sizes[0, right] == 32
    assert regions.sizes.sum() == 64


def test_regions_of_a_batch_are_those_of_its_images():
    dense = torch.randn(3, 6, 9, 7)
    together = multi_scale_regions(dense, (3, 5), iterations=4, threshold=0.6)
    for index in range(3):
        alone = multi_scale_regions(dense[index : index + 1], (3, 5), 4, 0.6)
        for whole, single in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[index], single[0])


def test_a_one_colour_image_is_one_region():
    regions = multi_scale_regions(torch.full((2, 4, 6, 6), 0.5), (2, 4), 3, 0.9)
    assert (regions.sizes > 0).sum(dim=1).tolist() == [1, 1]
    assert regions.centroids.isfinite().all()


def test_a_token_of_all_zeros_does_no_harm():
    dense = two_halves()
    dense[:, :, 0, 0] = 0
    regions = multi_scale_regions(dense, (2, 4), iterations=3, threshold=0.8)
    assert regions.sizes.sum() == 64
    assert regions.centroids.isfinite().all()
