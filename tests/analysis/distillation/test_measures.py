"""Regions and prototypes against hand-made truths, and the whole against a slow reference."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zss_d2.analysis.distillation.measures import (
    NO_CLASS,
    Coverage,
    coverage,
    fit_prototypes,
    margin,
    mean_of,
    region_classes,
)
from zss_d2.analysis.distillation.session import correlations

VOID = 255


def test_a_region_is_of_the_class_of_most_of_its_pixels():
    pseudo = np.array([[0, 0, 0, 1, 1], [2, 2, -1, 3, 3]])
    truth = np.array([[4, 4, 2, VOID, VOID], [1, 3, 0, 2, VOID]])
    # The second has no class, of the third's two the lower one counts, the fourth has one pixel.
    assert region_classes(pseudo, truth, 5, 6).tolist() == [4, NO_CLASS, 1, 2, NO_CLASS]


def test_region_classes_equal_a_loop():
    random = np.random.default_rng(0)
    pseudo, truth = random.integers(-1, 4, (20, 30)), random.integers(-1, 7, (20, 30))
    expected = []
    for region in range(4):
        votes = [int(((pseudo == region) & (truth == k)).sum()) for k in range(5)]
        expected.append(votes.index(max(votes)))
    assert region_classes(pseudo, truth, 4, 5).tolist() == expected


def test_coverage_counts_pixels_of_unseen_classes_alone():
    pseudo = np.array([[0, -1, 3], [-1, 1, 1]])
    truth = np.array([[5, 5, 1], [6, 6, VOID]])
    assert coverage(pseudo, truth, [5, 6]) == Coverage(covered=2, pixels=4)
    assert coverage(pseudo, truth, [2]) == Coverage(0, 0)


def test_prototypes_by_hand():
    """Classes along the axes, the first two seen; regions of class 2, 3, a seen one and none."""
    text, seen = torch.eye(4), torch.tensor([True, True, False, False])
    prototypes = torch.tensor(
        [[0.0, 0.6, 0.8, 0.0], [8.0, 0.0, 0.0, 6.0], [1.0, 0, 0, 0], [1.0, 0, 0, 0]]
    )
    right, wrong = fit_prototypes(prototypes, np.array([2, 3, 0, NO_CLASS]), text, seen)
    assert right == (pytest.approx(0.8), pytest.approx(0.6), True)
    assert wrong == (pytest.approx(0.6), pytest.approx(0.8), False)


def test_a_prototype_between_two_unseen_classes_is_not_right():
    text = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.3, 1.0]]), dim=1)
    (fit,) = fit_prototypes(
        torch.tensor([[0.3, 1.0]]), np.array([1]), text, torch.tensor([True, False, False])
    )
    assert not fit.right  # class 2, unseen as well, is nearer
    assert fit.seen == pytest.approx(0.3 / math.hypot(0.3, 1))


def test_the_margin_by_hand():
    """Cosines 1 to the own key and 0 to the other, then 0.6 and 0.8."""
    assert margin(torch.tensor([[2.0, 0.0], [0.8, 0.6]]), torch.eye(2)) == pytest.approx(0.4)


def test_the_mean_of_nothing_is_nan():
    assert mean_of([True, False]) == 0.5
    assert math.isnan(mean_of([]))


def points(**values: float) -> dict[int, dict[str, float]]:
    """Of a run with two checkpoints, of which the last one counts."""
    names = ("retrieval", "margin", "purity", "coverage", "own", "own nearest", "mIoU-U")
    last = {name: values.get(name, math.nan) for name in names}
    return {100: dict.fromkeys(names, 0.0), 200: last}


def test_correlations_are_of_the_last_checkpoints_and_need_three_runs():
    runs = [points(**{"retrieval": r, "mIoU-U": u}) for r, u in ((90, 40), (95, 70), (80, 30))]
    (line,) = correlations(runs)
    # Covariance 283.3, variances 116.7 and 866.7, all times 2.
    assert line == "retrieval and mIoU-U over 3 runs: Pearson +0.89, Spearman +1.00"
    assert correlations(runs[:2]) == []
