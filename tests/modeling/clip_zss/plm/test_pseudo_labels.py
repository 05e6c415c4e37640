"""F against a loop over pixels; what pseudo labels must never do."""

import pytest
import torch

from zss_d2.modeling.methods.clip_zss.plm.fusion import Regions
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import (
    UNLABELLED,
    fuse_labels,
    resize_labels,
    usable_regions,
)

K = 4


def everywhere(targets: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(targets, dtype=torch.bool)


def slow_fusion(targets, regions, inside, least):
    """One image whose maps have equal sizes: F as nested lists, pseudo ids in region order."""
    free = (targets == UNLABELLED) & inside & (regions != UNLABELLED)
    for region in range(int(regions.max()) + 1):
        own = regions == region
        if own.any() and float((free & own).sum() / own.sum()) < least:
            free &= ~own
    order = sorted(set(regions[free].tolist()))
    rows = []
    for y in range(targets.shape[0]):
        row = []
        for x in range(targets.shape[1]):
            region, target = int(regions[y, x]), int(targets[y, x])
            row.append(K + order.index(region) if free[y, x] else target)
        rows.append(row)
    return rows, len(order)


@pytest.mark.parametrize("least", [0.0, 0.2, 1.0])
def test_fusion_equals_the_slow_reference_on_every_image(least):
    targets, regions = torch.randint(-1, K, (5, 6, 7)), torch.randint(-1, 9, (5, 6, 7))
    inside = torch.rand(5, 6, 7) > 0.2
    fused = fuse_labels(targets, regions, inside, K, (6, 7), least)
    slow = [slow_fusion(*maps, least) for maps in zip(targets, regions, inside, strict=True)]
    assert fused.labels.tolist() == [labels for labels, _ in slow]
    assert torch.equal(fused.coarse, fused.labels)
    assert fused.num_pseudo == max(number for _, number in slow)


@pytest.mark.parametrize("seed", range(4))
def test_a_seen_label_stays_and_no_pseudo_label_is_a_class(seed):
    torch.manual_seed(seed)
    targets, regions = torch.randint(-1, K, (3, 32, 40)), torch.randint(0, 6, (3, 4, 5))
    fused = fuse_labels(targets, regions, everywhere(targets), K, (8, 10))
    labelled = targets != UNLABELLED
    assert torch.equal(fused.labels[labelled], targets[labelled])
    pseudo = fused.labels[~labelled]
    assert bool(((pseudo >= K) | (pseudo == UNLABELLED)).all())
    assert fused.labels.max() < K + fused.num_pseudo


def test_pseudo_ids_are_numbered_without_gaps_in_every_image():
    targets = torch.full((2, 4, 4), UNLABELLED)
    regions = torch.tensor([[[7, 3], [3, 3]], [[5, 5], [5, 5]]])
    fused = fuse_labels(targets, regions, everywhere(targets), K, (4, 4))
    assert fused.labels[0].unique().tolist() == [K, K + 1]
    assert fused.labels[1].unique().tolist() == [K]
    assert fused.num_pseudo == 2


def test_every_pseudo_id_has_features_to_be_averaged():
    """A region that nearest sampling misses at the size of the features is no pseudo label."""
    targets = torch.full((1, 8, 8), 1)
    targets[0, :, 0] = UNLABELLED  # one column, missed at stride 4
    fused = fuse_labels(targets, torch.zeros(1, 2, 2).long(), everywhere(targets), K, (2, 2))
    assert fused.num_pseudo == 0
    assert fused.labels.unique().tolist() == [UNLABELLED, 1]


def test_all_labelled_and_all_unlabelled_images():
    targets = torch.stack([torch.full((4, 4), 2), torch.full((4, 4), UNLABELLED)])
    regions = torch.tensor([[[0, 1], [2, 3]]] * 2)
    fused = fuse_labels(targets, regions, everywhere(targets), K, (4, 4))
    assert fused.labels[0].unique().tolist() == [2]
    assert fused.labels[1].unique().tolist() == [K, K + 1, K + 2, K + 3]


def test_no_region_at_all():
    targets = torch.full((1, 4, 4), UNLABELLED)
    fused = fuse_labels(targets, torch.full((1, 2, 2), UNLABELLED), everywhere(targets), K, (2, 2))
    assert fused.num_pseudo == 0
    assert fused.labels.unique().tolist() == [UNLABELLED]


def test_small_regions_are_left_out():
    regions = Regions(
        labels=torch.tensor([[[0, 0, 0], [1, 1, 2]]]),
        centroids=torch.zeros(1, 3, 2),
        sizes=torch.tensor([[3, 2, 1]]),
    )
    assert usable_regions(regions, 2).tolist() == [[[0, 0, 0], [1, 1, -1]]]
    assert torch.equal(usable_regions(regions, 1), regions.labels)


def test_resizing_repeats_and_picks_labels():
    labels = torch.tensor([[[0, 70000], [-1, 3]]])
    large = resize_labels(labels, (4, 6))
    assert large[0, :, :3].unique().tolist() == [-1, 0]
    assert torch.equal(resize_labels(large, (2, 2)), labels)
