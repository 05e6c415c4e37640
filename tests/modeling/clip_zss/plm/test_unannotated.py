"""C2S: seeds, K-Means and regions of unannotated tokens alone, against one image at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.modeling.clip_zss.plm.test_fusion import slow_fusion
from tests.modeling.clip_zss.plm.test_kmeans import slow_kmeans
from zss_d2.modeling.methods.clip_zss.plm.fusion import UNLABELLED, multi_scale_regions
from zss_d2.modeling.methods.clip_zss.plm.kmeans import cosine_kmeans, unannotated_seeds
from zss_d2.modeling.methods.clip_zss.plm.regions import RegionSettings

C2S = RegionSettings((2, 4), 4, 0.8, 1, 0.0, unannotated_only=True)


def starts(side: int, window: int) -> list[int]:
    """0, o/2, o, ..., side - o, rounded half up."""
    last = side - min(window, side)
    step, found, k = max(1, window / 2), [], 0
    while math.floor(k * step + 0.5) < last:
        found.append(math.floor(k * step + 0.5))
        k += 1
    return [*found, last]


def slow_seeds(tokens, window, unannotated):
    """One image: equation 1, tokens (C, h, w) -> list of (C,)."""
    _, height, width = tokens.shape
    high, wide = min(window, height), min(window, width)
    seeds = []
    for y in starts(height, window):
        for x in starts(width, window):
            total = torch.zeros(len(tokens), dtype=tokens.dtype)
            for i in range(y, y + high):
                for j in range(x, x + wide):
                    if unannotated[i, j]:
                        total = total + tokens[:, i, j]
            seeds.append(total / (high * wide))
    return seeds


def slow_regions(tokens, unannotated, windows, iterations, threshold):
    """One image: labels as nested lists, by the steps of the paper with plain loops."""
    places = [tuple(place) for place in unannotated.nonzero().tolist()]
    mine = [tokens[:, y, x] for y, x in places]
    centroids, counts = [], []
    for window in sorted(windows, reverse=True):
        seeds = [s / s.norm() for s in slow_seeds(tokens, window, unannotated) if s.norm() > 0]
        if not seeds:
            continue
        updated, assignment = slow_kmeans(mine, seeds, iterations)
        centroids += updated
        counts += [assignment.count(m) for m in range(len(updated))]
    labels = torch.full(unannotated.shape, UNLABELLED)
    if not centroids:
        return labels
    # Every cluster is its own scale, so that all may merge.
    _, groups = slow_fusion(centroids, counts, range(len(counts)), threshold)
    fused = {k: sum(counts[m] * centroids[m] for m in own) for k, own in groups.items()}
    for (y, x), token in zip(places, mine, strict=True):
        cosines = {k: float(token @ v / v.norm()) for k, v in fused.items()}
        labels[y, x] = max(cosines, key=cosines.get)
    return labels


def same_partition(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two maps are equal up to the names of their regions; -1 is no region."""
    pairs = set(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    named = {pair for pair in pairs if UNLABELLED not in pair}
    loose = {pair for pair in pairs if UNLABELLED in pair}
    one_to_one = len({x for x, _ in named}) == len(named) == len({y for _, y in named})
    return one_to_one and loose <= {(UNLABELLED, UNLABELLED)}


def tokens_and_mask(batch: int = 3, share: float = 0.6):
    dense = torch.randn(batch, 5, 7, 9, dtype=torch.float64)
    return dense, torch.rand(batch, 7, 9) < share


@pytest.mark.parametrize("window", [1, 2, 3, 4, 8, 20])
def test_seeds_are_equation_1(window):
    dense, unannotated = tokens_and_mask()
    tokens = F.normalize(dense, dim=1)
    got = unannotated_seeds(tokens, window, unannotated)
    for image in range(3):
        expected = slow_seeds(tokens[image], window, unannotated[image])
        torch.testing.assert_close(got[image], torch.stack(expected))


def test_a_seed_is_divided_by_the_whole_window_however_much_is_annotated():
    tokens = torch.zeros(1, 2, 4, 4)
    tokens[:, 0] = 1
    unannotated = torch.zeros(1, 4, 4, dtype=torch.bool)
    unannotated[0, 0, :3] = True
    assert unannotated_seeds(tokens, 4, unannotated).tolist() == [[[3 / 16, 0]]]


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_kmeans_of_some_tokens_is_that_without_the_others(iterations):
    tokens = F.normalize(torch.randn(3, 40, 6, dtype=torch.float64), dim=2)
    seeds = F.normalize(torch.randn(3, 7, 6, dtype=torch.float64), dim=2)
    seeds[:, 2] = 0
    members = torch.rand(3, 40) < 0.5
    got = cosine_kmeans(tokens, seeds, iterations, members)
    kept = [m for m in range(7) if m != 2]
    for image in range(3):
        mine = tokens[image][members[image]]
        centroids, assignment = slow_kmeans(mine, seeds[image, kept], iterations)
        torch.testing.assert_close(got.centroids[image, kept], torch.stack(centroids))
        assert got.assignment[image][members[image]].tolist() == [kept[m] for m in assignment]
        assert (got.assignment[image][~members[image]] == 7).all()
        assert got.counts[image].tolist() == [
            assignment.count(kept.index(m)) if m in kept else 0 for m in range(7)
        ]


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("windows", [(2, 4), (3,), (20, 2)])
def test_regions_equal_the_slow_reference_on_every_image(windows, threshold):
    dense, unannotated = tokens_and_mask()
    unannotated[1] = True  # nothing of an image is annotated
    dense = dense.float()  # which is what they are clustered in
    got = multi_scale_regions(dense, windows, 3, threshold, unannotated=unannotated)
    for image in range(3):
        tokens = F.normalize(dense[image], dim=0)
        expected = slow_regions(tokens, unannotated[image], windows, 3, threshold)
        assert same_partition(got.labels[image], expected)
        for region in range(got.sizes.shape[1]):
            assert got.sizes[image, region] == (got.labels[image] == region).sum()


def test_regions_of_a_batch_are_those_of_its_images():
    dense, unannotated = tokens_and_mask(4)
    unannotated[2] = False
    together = multi_scale_regions(dense, (2, 4), 3, 0.6, unannotated=unannotated)
    for index in range(4):
        mine = slice(index, index + 1)
        alone = multi_scale_regions(dense[mine], (2, 4), 3, 0.6, unannotated=unannotated[mine])
        for whole, single in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[index], single[0])


def test_annotated_tokens_do_not_matter():
    dense, unannotated = tokens_and_mask()
    other = dense.where(unannotated[:, None], torch.randn_like(dense))
    expected = multi_scale_regions(dense, (2, 4), 3, 0.6, unannotated=unannotated)
    got = multi_scale_regions(other, (2, 4), 3, 0.6, unannotated=unannotated)
    for x, y in zip(expected, got, strict=True):
        assert torch.equal(x, y)


def test_an_image_without_unannotated_tokens_has_no_region():
    dense, unannotated = tokens_and_mask(2)
    regions = multi_scale_regions(dense, (2, 4), 3, 0.6, unannotated=unannotated & False)
    assert (regions.labels == UNLABELLED).all()
    assert not regions.sizes.any()
    assert not regions.centroids.any()


def test_clusters_of_one_scale_merge_too():
    """Two windows of one size over one texture: today's way keeps them apart, C2S does not."""
    dense = torch.zeros(1, 2, 4, 8)
    dense[:, 0] = 1
    dense[:, 1, :, 4:] = 0.1
    everything = torch.ones(1, 4, 8, dtype=torch.bool)
    today = multi_scale_regions(dense, (4,), 3, 0.8)
    c2s = multi_scale_regions(dense, (4,), 3, 0.8, unannotated=everything)
    assert (today.sizes > 0).sum() == 2
    assert (c2s.sizes > 0).sum() == 1


@pytest.mark.parametrize("kind", ["void-free", "all annotated", "all unannotated"])
def test_labels_of_images_at_the_ends(kind):
    dense = torch.randn(2, 5, 8, 8)
    targets = torch.randint(0, 3, (2, 16, 16))
    if kind == "all unannotated":
        targets[:] = UNLABELLED
    elif kind == "all annotated":
        # Single void pixels between the middles of the tokens, such as borders are.
        targets[:, 0, 0] = UNLABELLED
    inside = torch.ones_like(targets, dtype=torch.bool)
    fused = C2S.label(dense, targets, inside, 3, (8, 8))
    if kind == "all unannotated":
        assert (fused.labels >= 3).all()
        assert fused.num_pseudo > 0
    else:
        assert torch.equal(fused.labels, targets)
        assert fused.num_pseudo == 0


def test_padding_is_not_clustered():
    dense = torch.randn(1, 5, 8, 8)
    targets = torch.full((1, 16, 16), UNLABELLED)
    inside = torch.ones_like(targets, dtype=torch.bool)
    inside[..., 8:] = False
    regions = C2S.find(dense, (targets == UNLABELLED) & inside)
    assert (regions[..., 4:] == UNLABELLED).all()
    assert (regions[..., :4] != UNLABELLED).all()


def test_no_value_of_a_token_is_asked_for():
    """Tensors of the device "meta" have none, so that a GPU would not be waited for either."""
    dense = torch.empty(2, 5, 8, 8, device="meta")
    unannotated = torch.empty(2, 8, 8, dtype=torch.bool, device="meta")
    # Without its switch of autocast, which knows no such device.
    regions = multi_scale_regions.__wrapped__(dense, (2, 4), 3, 0.6, unannotated=unannotated)
    assert regions.labels.shape == (2, 8, 8)


def test_partitions_are_the_same_inside_an_autocast():
    dense = torch.randn(3, 16, 12, 12, generator=torch.Generator().manual_seed(1)) + 1
    unannotated = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.7
    exact = multi_scale_regions(dense, (3, 6), 5, 0.9, unannotated=unannotated)
    with torch.autocast("cpu", torch.bfloat16):
        inside = multi_scale_regions(dense, (3, 6), 5, 0.9, unannotated=unannotated)
    for x, y in zip(exact, inside, strict=True):
        assert torch.equal(x, y)
