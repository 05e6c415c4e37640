"""From counts to metrics of all, seen and unseen classes."""

import math

import numpy as np
import pytest

from zss_d2.evaluation.shape.counts import COLUMNS
from zss_d2.evaluation.shape.metrics import METRICS, is_measured, shape_rows, summarise_shape

NAMES = ["sky", "dog", "cat", "never"]


def counts(**columns: list[int]) -> np.ndarray:
    return np.stack([columns.get(name, [0] * 4) for name in COLUMNS], axis=1)


def test_ratios_are_averaged_over_the_classes_that_are_there():
    metrics = summarise_shape(
        counts(
            regions=[2, 4, 1, 0],
            region_px=[100, 50, 10, 0],
            fragments=[6, 4, 0, 0],
            pieces=[4, 4, 3, 0],
            majority_px=[80, 50, 5, 0],
            right_majority_px=[100, 40, 0, 0],
            predicted_px=[200, 50, 0, 7],
            strays=[3, 1, 0, 2],
            stray_px=[20, 10, 0, 7],
            boundary_both=[10, 4, 0, 0],
            boundary_either=[20, 10, 8, 0],
        ),
        num_images=2,
        class_names=NAMES,
        unseen_names=["cat", "never"],
    )
    assert metrics["fragments"] == pytest.approx((3 + 1 + 0) / 3)
    assert (metrics["fragments-S"], metrics["fragments-U"]) == (2, 0)
    assert (metrics["pieces-S"], metrics["pieces-U"]) == (1.5, 3)
    assert (metrics["consistency-S"], metrics["consistency-U"]) == (90, 50)
    assert (metrics["right-majority-S"], metrics["right-majority-U"]) == (90, 0)
    assert metrics["stray-px"] == metrics["stray-px-S"] == pytest.approx((10 + 20) / 2)
    assert math.isnan(metrics["stray-px-U"])  # cat is never predicted, never has no truth
    assert (metrics["strays"], metrics["strays-S"], metrics["strays-U"]) == (3, 2, 1)
    assert metrics["mBIoU-S"] == pytest.approx((50 + 40) / 2)
    assert metrics["mBIoU"] == pytest.approx(30)
    assert is_measured(metrics)
    assert set(metrics) == {f"{name}{group}" for name in METRICS for group in ("", "-S", "-U")}
    rows = shape_rows(metrics)
    assert rows[0] == ["classes", *METRICS]
    assert rows[3] == ["unseen", "0.00", "3.00", "50.0", "0.0", "1.00", "-", "0.0"]


def test_groups_without_classes_are_undefined():
    metrics = summarise_shape(counts(regions=[1, 0, 0, 0], pieces=[2, 0, 0, 0]), 1, NAMES, [])
    assert metrics["pieces"] == metrics["pieces-S"] == 2
    assert all(math.isnan(metrics[f"{name}-U"]) for name in METRICS)


def test_what_was_not_measured_has_no_rows():
    assert shape_rows({"mIoU": 40.0}) == []
