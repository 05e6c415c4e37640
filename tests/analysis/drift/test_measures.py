"""Measures of drift on embeddings made by hand, and against loops."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zss_d2.analysis.drift.measures import (
    NO_CLASS,
    Cloud,
    QueryMeasures,
    Spread,
    TokenMeasures,
    fit_plane,
    group_means,
    nearest_other,
    token_labels,
)

X, Y, Z = torch.eye(3)
PLANE = fit_plane(torch.stack([X, Y, Z]))


def of_grid(labels, grid=(1, 2), share=0.75, image=None, padded=None):
    labels = np.array(labels)
    image = image or labels.shape
    return token_labels(labels, image, padded or image, grid, 3, share).tolist()


def test_a_token_has_the_class_of_enough_of_its_pixels():
    labels = [[0, 0, 1, 1], [0, 2, 2, 2]]
    assert of_grid(labels) == [[0, NO_CLASS]]
    assert of_grid(labels, share=0.8) == [[NO_CLASS, NO_CLASS]]
    assert of_grid(labels, share=0.5) == [[0, 1]]  # of two with a half the lower id


def test_void_pixels_and_padding_are_pixels_of_a_token():
    assert of_grid([[255, 0, 1, 1], [0, 0, 1, 255]]) == [[0, 1]]
    assert of_grid([[255, 0, 255, 1], [0, 0, 1, 255]]) == [[0, NO_CLASS]]
    assert of_grid([[-1, 7, 1, 1], [255, 0, 1, 1]], share=0.5) == [[NO_CLASS, 1]]
    # The image ends in the middle of the second token, or before it.
    assert of_grid([[0, 0, 1], [0, 0, 1]], padded=(2, 4)) == [[0, NO_CLASS]]
    assert of_grid([[0, 0, 1], [0, 0, 1]], padded=(2, 4), share=0.5) == [[0, 1]]
    assert of_grid([[0, 0], [0, 0]], padded=(2, 4)) == [[0, NO_CLASS]]


def test_labels_of_another_size_than_the_image():
    labels = np.repeat(np.repeat([[0, 1], [2, 255]], 5, axis=0), 3, axis=1)  # 10 x 6
    got = token_labels(labels, (20, 24), (20, 24), (2, 2), 3)
    assert got.tolist() == [[0, 1], [2, NO_CLASS]]


def slow_token_labels(labels, image, padded, grid, num_classes, share):
    """One pixel after the other, of labels that have the size of the image."""
    assert labels.shape == image
    result = np.full(grid, NO_CLASS)
    height, width = padded[0] // grid[0], padded[1] // grid[1]
    for i in range(grid[0]):
        for j in range(grid[1]):
            counts = [0] * num_classes
            for y in range(i * height, (i + 1) * height):
                for x in range(j * width, (j + 1) * width):
                    inside = y < image[0] and x < image[1]
                    if inside and 0 <= labels[y, x] < num_classes:
                        counts[labels[y, x]] += 1
            if max(counts) >= share * height * width:
                result[i, j] = counts.index(max(counts))
    return result


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_token_labels_equal_the_slow_reference(share):
    random = np.random.default_rng(0)
    coarse = random.choice([0, 1, 2, 255], (9, 7), p=[0.4, 0.3, 0.2, 0.1])
    labels = np.repeat(np.repeat(coarse, 3, axis=0), 3, axis=1)[:26, :20]
    arguments = (labels, (26, 20), (32, 24), (8, 6), 3, share)
    np.testing.assert_array_equal(token_labels(*arguments), slow_token_labels(*arguments))


def test_the_plane_of_points_in_a_plane():
    """A long axis along x and a short one along z around (0, 5, 0)."""
    points = torch.tensor([[4.0, 5, 0], [-4.0, 5, 0], [0.0, 5, 1], [0.0, 5, -1]])
    plane = fit_plane(points)
    torch.testing.assert_close(plane.centre, torch.tensor([0.0, 5, 0]))
    torch.testing.assert_close(plane.axes, torch.stack([X, Z]))
    assert plane.explained == pytest.approx(1)
    torch.testing.assert_close(plane.place(torch.tensor([1.0, 99, 2])), torch.tensor([1.0, 2]))


def test_the_plane_equals_that_of_the_covariance():
    points = torch.randn(12, 5, dtype=torch.float64)
    plane = fit_plane(points)
    values, axes = np.linalg.eigh(np.cov(points.numpy().T))
    for got, expected in zip(plane.axes.numpy(), axes.T[::-1], strict=False):
        assert abs(got @ expected) == pytest.approx(1)
        assert got[np.abs(got).argmax()] > 0
    assert plane.explained == pytest.approx(values[-2:].sum() / values.sum())


def test_nearest_other_by_hand():
    vectors = F.normalize(torch.stack([X, X + 0.1 * Y, Y, X + 0.5 * Y]), dim=1)
    cosine, index = nearest_other(vectors)
    assert index.tolist() == [1, 0, 3, 1]
    assert cosine[2] == pytest.approx(0.5 / math.hypot(1, 0.5))


def test_spread_by_hand():
    """Class 0 is X and Y, whose mean has length sqrt(1/2); class 1 is Z twice; 2 has none."""
    spread = Spread(3, 3)
    spread.add(torch.stack([X, Z, Y]), torch.tensor([0, 1, 0]))
    spread.add(Z[None], torch.tensor([1]))
    torch.testing.assert_close(spread.within()[:2], torch.tensor([0.5, 0.0]).double())
    # Means (1/2, 1/2, 0) and (0, 0, 1), half of their squared distance of 1.5 each, squared: / 4.
    torch.testing.assert_close(spread.between()[:2], torch.full((2,), 1.5 / 4).double())
    assert spread.within()[2].isnan()
    assert spread.between()[2].isnan()


def test_variance_is_half_of_the_squared_distance_of_two():
    vectors = F.normalize(torch.randn(7, 4), dim=1)
    spread = Spread(1, 4)
    spread.add(vectors, torch.zeros(7, dtype=torch.long))
    expected = torch.cdist(vectors, vectors).square().mean() / 2
    assert float(spread.within()) == pytest.approx(float(expected), rel=1e-5)


def test_tokens_by_hand():
    """Two tokens of class 0, one nearer to class 1; none of class 2."""
    measures = TokenMeasures(3, 3, PLANE)
    classes = torch.stack([2 * X, 3 * Y, -Z])
    measures.add(torch.stack([5 * X, 3 * X + 4 * Y]), torch.tensor([0, 0]), classes)
    got = {name: x[0].item() for name, x in measures.per_class().items()}
    assert got["own"] == pytest.approx((1 + 0.6) / 2)
    assert got["best other"] == pytest.approx((0 + 0.8) / 2)
    assert got["own nearest"] == 0.5
    assert got["within"] == pytest.approx(1 - (0.8**2 + 0.4**2))
    assert measures.per_class()["own"][1:].isnan().all()


def slow_tokens(images):
    """Every measure by one token after the other; images of (tokens, ids, classes)."""
    number = len(images[0][2])
    own, other, right, units = ([[] for _ in range(number)] for _ in range(4))
    for tokens, ids, classes in images:
        for token, k in zip(tokens, ids.tolist(), strict=True):
            cosine = [float(F.cosine_similarity(token, x, dim=0)) for x in classes]
            own[k].append(cosine.pop(k))
            other[k].append(max(cosine))
            right[k].append(own[k][-1] > other[k][-1])
            units[k].append((token / token.norm()).double())
    means = [torch.stack(x).mean(dim=0) for x in units]
    centre = torch.stack(means).mean(dim=0)
    return {
        "own": [sum(x) / len(x) for x in own],
        "best other": [sum(x) / len(x) for x in other],
        "own nearest": [sum(x) / len(x) for x in right],
        "within": [
            sum(float((u - m).square().sum()) for u in x) / len(x)
            for x, m in zip(units, means, strict=True)
        ],
        "between": [float((m - centre).square().sum()) for m in means],
    }


def test_tokens_equal_the_slow_reference():
    torch.manual_seed(0)
    images = [(torch.randn(20, 6), torch.arange(20) % 4, torch.randn(4, 6)) for _ in range(3)]
    measures = TokenMeasures(4, 6, fit_plane(torch.randn(4, 6)))
    for image in images:
        measures.add(*image)
    for name, expected in slow_tokens(images).items():
        assert measures.per_class()[name].tolist() == pytest.approx(expected, abs=1e-5), name


def test_queries_by_hand():
    """Class 1 moves from the neighbourhood of class 0 to that of class 2, an unseen one."""
    entered = torch.stack([X, X + 0.1 * Y, Y, Z])
    queries = torch.stack([X, Y - 0.1 * X, Y, Z])
    seen = torch.tensor([True, True, False, False])
    measures = QueryMeasures(4, 3, PLANE, seen)
    measures.add(queries, entered, entered)
    measures.add(entered, entered, queries)
    got = {name: x.tolist() for name, x in measures.per_class().items()}
    assert got["to entered"][0] == 1
    assert got["to entered"][1] == pytest.approx((0 + 1) / 2, abs=1e-6)
    assert got["to text"][1] == pytest.approx((0 + 0) / 2, abs=1e-6)
    assert got["neighbour changed"][1:3] == [0.5, 0.0]
    assert got["neighbour seen"][1:3] == [0.5, 1.0]
    assert got["over images"][2] == pytest.approx(0, abs=1e-6)
    assert got["over images"][1] == pytest.approx(0.5, abs=1e-6)  # of two directions at 90 degrees


def test_nothing_that_moves_changes_nothing():
    vectors = torch.randn(5, 8)
    measures = QueryMeasures(5, 8, fit_plane(vectors), torch.ones(5, dtype=torch.bool))
    for scale in (1, 3):
        measures.add(scale * vectors, vectors, vectors)
    got = measures.per_class()
    torch.testing.assert_close(got["to entered"], torch.ones(5).double())
    assert got["neighbour changed"].sum() == 0
    assert got["over images"].abs().max() < 1e-6


def test_a_cloud_has_the_mean_and_the_covariance_of_its_points():
    points, ids = torch.randn(30, 6), torch.arange(30) % 2
    cloud = Cloud(2, fit_plane(torch.randn(4, 6)))
    for part in (slice(0, 11), slice(11, 30)):
        cloud.add(points[part], ids[part])
    for index in range(2):
        places = cloud.plane.place(points[ids == index]).double()
        torch.testing.assert_close(cloud.means[index], places.mean(dim=0))
        expected = torch.cov(places.T, correction=0)
        torch.testing.assert_close(cloud.covariances[index], expected)


def test_means_of_groups_leave_out_classes_without_tokens():
    values = {"within": torch.tensor([0.1, math.nan, 0.5]), "between": torch.tensor([0.4, 1, 0.4])}
    got = group_means(values, {"seen": [0, 1], "unseen": [2]})
    assert got["seen"]["within"] == pytest.approx(0.1)
    assert got["seen"]["within / between"] == pytest.approx(0.1 / 0.7)
    assert got["unseen"]["within / between"] == pytest.approx(1.25)
    lonely = group_means({"within": torch.tensor([math.nan])}, {"seen": [0]})
    assert math.isnan(lonely["seen"]["within"])
