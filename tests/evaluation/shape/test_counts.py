"""Components, boundaries and counts on hand-made maps and against flood fill."""

import cv2
import numpy as np
import pytest

from tests.evaluation.shape.reference import slow_counts
from zss_d2.evaluation.shape.boundary import boundary, boundary_distance
from zss_d2.evaluation.shape.components import Joins, components
from zss_d2.evaluation.shape.counts import COLUMNS, shape_counts


def of_class(counts: np.ndarray, label: int) -> dict[str, int]:
    return dict(zip(COLUMNS, counts[label].tolist(), strict=True))


def test_components_join_across_sides_and_not_across_corners():
    labels = np.array([[1, 1, 0, 2], [0, 1, 0, 0], [1, 0, 0, 2]])
    found = components(Joins.of(labels))
    assert found.dtype == np.int32
    wanted = [[1, 1, 2, 3], [4, 1, 2, 2], [5, 2, 2, 6]]
    pairs = set(zip(found.ravel().tolist(), np.ravel(wanted).tolist(), strict=True))
    assert len(pairs) == found.max() + 1 == 6  # one to one


def test_one_row_one_column_one_pixel():
    assert components(Joins.of(np.array([[3, 3, 1, 3]]))).tolist() == [[0, 0, 1, 2]]
    assert components(Joins.of(np.array([[3], [3], [1]]))).tolist() == [[0], [0], [1]]
    assert components(Joins.of(np.array([[7]]))).tolist() == [[0]]


def test_an_image_by_hand():
    """Two regions of class 1, one of 0; void between them is in nothing."""
    truth = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0, 0, 1, 1],
            [0, 1, 1, 1, 0, 3, 1, 1],
            [0, 0, 0, 0, 0, 3, 0, 0],
        ]
    )
    prediction = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 2, 1, 0, 0, 2, 2],
            [0, 1, 2, 1, 0, 1, 2, 2],
            [0, 1, 0, 0, 1, 1, 0, 0],
        ]
    )
    counts = shape_counts(truth, prediction, 3)
    one = of_class(counts, 1)
    # Left: columns of 1, 2 and 1, two pixels each: every label is as frequent but the right one
    # has 4 of 6. Right: four pixels of class 2.
    assert (one["regions"], one["region_px"]) == (2, 10)
    assert one["pieces"] == 4
    assert (one["majority_px"], one["right_majority_px"]) == (8, 6)
    # Left column with the pixel below it, right column, and a pixel on class 0 that void cuts off.
    assert (one["fragments"], one["predicted_px"]) == (3, 6)
    assert (one["strays"], one["stray_px"]) == (1, 1)
    two = of_class(counts, 2)
    assert (two["regions"], two["fragments"], two["predicted_px"]) == (0, 0, 6)
    assert (two["strays"], two["stray_px"]) == (2, 6)
    zero = of_class(counts, 0)
    assert (zero["regions"], zero["region_px"], zero["strays"]) == (2, 20, 0)


def test_a_tie_goes_to_the_right_class():
    truth = np.full((2, 4), 1)
    prediction = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    one = of_class(shape_counts(truth, prediction, 2), 1)
    assert (one["majority_px"], one["right_majority_px"]) == (4, 8)


def test_a_perfect_prediction_is_perfect_whatever_it_says_about_void():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (20, 30)).repeat(3, 0).repeat(3, 1)
    truth[rng.random(truth.shape) < 0.2] = 4
    prediction = np.where(truth == 4, rng.integers(0, 4, truth.shape), truth)
    for label in range(4):
        x = of_class(shape_counts(truth, prediction, 4), label)
        assert x["regions"] == x["fragments"] == x["pieces"] > 0
        assert x["region_px"] == x["majority_px"] == x["right_majority_px"] == x["predicted_px"]
        assert x["boundary_both"] == x["boundary_either"] > 0
        assert x["strays"] == x["stray_px"] == 0


@pytest.mark.parametrize("num_classes", [3, 300])
@pytest.mark.parametrize("cell", [1, 3, 9])
def test_equals_flood_fill(num_classes, cell):
    rng = np.random.default_rng(cell)

    def labels(height: int, width: int) -> np.ndarray:
        coarse = rng.integers(0, num_classes, (height // cell + 1, width // cell + 1))
        return coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]

    for height, width in ((20, 30), (1, 12), (12, 1), (55, 9)):
        truth, prediction = labels(height, width), labels(height, width)
        # Alike in part.
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, prediction)
        truth[rng.random(truth.shape) < 0.1] = num_classes
        truth = truth.astype(np.uint8 if num_classes < 256 else np.int32)
        counts = shape_counts(truth, prediction, num_classes)
        np.testing.assert_array_equal(counts, slow_counts(truth, prediction, num_classes))


@pytest.mark.parametrize("num_classes", [252, 253, 254, 255, 256])
def test_numbers_of_classes_at_the_limits_of_a_byte(num_classes):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(num_classes - 3, num_classes, (2, 24, 60)).repeat(5, 1)
    truth[rng.random(truth.shape) < 0.1] = num_classes
    counts = shape_counts(truth, prediction, num_classes)
    few = shape_counts(truth - num_classes + 3, prediction - num_classes + 3, 3)
    np.testing.assert_array_equal(counts[-3:], few)
    assert not counts[:-3].any()


def test_the_boundary_is_what_erosion_leaves_over():
    """As the paper's code, class by class, where nothing is void."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (6, 9)).repeat(15, 0).repeat(15, 1)
    height, width = labels.shape
    distance = boundary_distance(height, width)
    assert distance == 3  # 0.02 * 162.2
    wanted = np.zeros(labels.shape, bool)
    for label in range(3):
        mask = cv2.copyMakeBorder((labels == label).astype(np.uint8), 1, 1, 1, 1, 0, value=0)
        inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)
        wanted |= (mask - inner)[1:-1, 1:-1] > 0
    assert 0 < wanted.sum() < wanted.size
    np.testing.assert_array_equal(boundary(labels, 3, distance), wanted)


def test_void_is_no_contour_and_in_no_boundary():
    labels = np.full((30, 30), 1)
    labels[:, 14:16] = 2  # void
    found = boundary(labels, 2, 3)
    wanted = np.ones(labels.shape, bool)
    wanted[3:-3, 3:-3] = False
    wanted[:, 14:16] = False
    np.testing.assert_array_equal(found, wanted)
    labels[:, 16:] = 0
    # Two pixels of void take as many off the width on either side.
    assert np.flatnonzero(boundary(labels, 2, 3)[15, 3:-3]).tolist() == [10, 13]


def test_images_without_labels_or_pixels_count_nothing():
    assert not shape_counts(np.full((4, 5), 3), np.ones((4, 5), int), 3).any()
    assert not shape_counts(np.ones((0, 5), int), np.ones((0, 5), int), 3).any()


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"the prediction is \(4, 5\), the ground truth \(5, 4\)"):
        shape_counts(np.ones((5, 4), int), np.ones((4, 5), int), 3)
