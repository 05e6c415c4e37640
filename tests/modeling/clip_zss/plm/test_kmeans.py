"""Batched cosine K-Means against one image and one token at a time."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.kmeans import cosine_kmeans, window_seeds


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def nearest(token, centroids) -> int:
    cosines = [float(token @ c) for c in centroids]
    return cosines.index(max(cosines))


def slow_kmeans(tokens, seeds, iterations):
    """One image: tokens (N, C), seeds (M, C) -> centroids and assignment as lists."""
    centroids = list(seeds)
    for _ in range(iterations):
        members = [[] for _ in centroids]
        for token in tokens:
            members[nearest(token, centroids)].append(token)
        for index, own in enumerate(members):
            if own:
                total = sum(own)
                centroids[index] = total / total.norm()
    return centroids, [nearest(token, centroids) for token in tokens]


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_kmeans_equals_the_slow_reference_on_every_image(iterations):
    tokens, seeds = unit(3, 40, 6), unit(3, 7, 6)
    got = cosine_kmeans(tokens, seeds, iterations)
    for image in range(3):
        centroids, assignment = slow_kmeans(tokens[image], seeds[image], iterations)
        torch.testing.assert_close(got.centroids[image], torch.stack(centroids))
        assert got.assignment[image].tolist() == assignment
        assert got.counts[image].tolist() == [assignment.count(m) for m in range(7)]


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_never_falls_in_cosine(seed):
    torch.manual_seed(seed)
    tokens, seeds = unit(2, 60, 4), unit(2, 9, 4)
    previous = torch.full((2,), -float("inf"), dtype=torch.float64)
    for iterations in range(8):
        clusters = cosine_kmeans(tokens, seeds, iterations)
        own = clusters.centroids.gather(1, clusters.assignment[..., None].expand_as(tokens))
        cosines = (tokens * own).sum(dim=(1, 2))
        assert bool((cosines >= previous - 1e-9).all())
        previous = cosines


def test_an_empty_cluster_keeps_its_centroid():
    tokens = torch.tensor([[[1.0, 0.0], [0.8, 0.6]]])
    seeds = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    clusters = cosine_kmeans(tokens, seeds, 3)
    assert clusters.counts.tolist() == [[2, 0]]
    assert clusters.centroids[0, 1].tolist() == [-1, 0]


def test_tokens_that_cancel_each_other_leave_the_centroid():
    tokens = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]])
    seeds = torch.tensor([[[1.0, 0.0]]])
    assert cosine_kmeans(tokens, seeds, 2).centroids.tolist() == [[[1, 0]]]


def test_a_one_colour_image_is_one_cluster():
    tokens = F.normalize(torch.ones(1, 5, 6, 6), dim=1)
    clusters = cosine_kmeans(tokens.flatten(2).transpose(1, 2), window_seeds(tokens, 2), 4)
    assert (clusters.counts > 0).sum() == 1
    assert clusters.centroids.isfinite().all()


def test_seeds_are_means_of_windows_at_steps_of_half_their_side():
    tokens = F.normalize(torch.randn(2, 3, 6, 7), dim=1)
    seeds = window_seeds(tokens, 4)
    expected = [tokens[:, :, y : y + 4, x : x + 4].mean(dim=(2, 3)) for y in (0, 2) for x in (0, 2)]
    torch.testing.assert_close(seeds, F.normalize(torch.stack(expected, dim=1), dim=2))


def test_a_window_larger_than_the_grid_is_the_grid():
    tokens = F.normalize(torch.randn(1, 3, 2, 5), dim=1)
    seeds = window_seeds(tokens, 4)
    expected = tokens[..., :4].mean(dim=(2, 3))
    torch.testing.assert_close(seeds, F.normalize(expected, dim=1)[:, None])
