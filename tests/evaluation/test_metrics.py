from unittest.mock import Mock

import numpy as np
import pytest
import torch

from zss_d2.evaluation.metrics import (
    absent_as_zero_note,
    class_iou,
    confusion_matrix,
    count_pairs,
    count_values,
    harmonic_mean,
    mean_over_present,
    pixel_accuracy,
    summarise,
    truth_columns,
)

NAMES = ("a", "b", "u")
IGNORE = 255


def test_confusion_by_hand():
    truth = np.array([[0, 0, 1], [2, IGNORE, 1]])
    prediction = np.array([[0, 1, 1], [0, 2, 1]])
    expected = [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
    for dtype in (np.uint8, np.uint16, np.int64):
        labels = [torch.from_numpy(x.astype(dtype)) for x in (prediction, truth)]
        assert confusion_matrix(*labels, 3, IGNORE).tolist() == expected
        assert labels[1].tolist() == truth.tolist()  # left as it was


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([[0, 0]], [[0]], r"prediction is \(1, 2\), the ground truth \(1, 1\)"),
        ([[0]], [[77]], "ground truth holds label 77 outside 0..2"),
        ([[0]], [[-1]], "ground truth holds label -1 outside 0..2"),
        ([[0]], [[300]], "ground truth holds label 300 outside 0..2"),
        ([[0]], [[3]], "ground truth holds label 3 outside 0..2"),
    ],
)
def test_misfits_are_errors(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(prediction), torch.tensor(truth), 3, IGNORE)


def test_all_ignored_and_empty_maps_count_nothing():
    for truth in (torch.full((2, 3), IGNORE), torch.zeros(0, 3, dtype=torch.int64)):
        assert not confusion_matrix(torch.zeros_like(truth), truth, 3, IGNORE).any()


def test_the_ignore_label_may_be_far_away_or_among_the_classes():
    prediction, truth = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 65535])
    assert confusion_matrix(prediction, truth, 2, 65535).tolist() == [[1, 0], [0, 1]]
    truth = torch.tensor([0, 0, 1])
    assert confusion_matrix(prediction, truth, 2, 0).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_counting_without_waiting_is_bincount(dtype):
    values = torch.randint(0, 7, (5, 30), dtype=dtype)
    expected = torch.bincount(values.flatten().long(), minlength=11)
    assert torch.equal(count_values(values, 11), expected)
    assert not count_values(values[:0], 11).any()


def test_predictions_of_other_devices_than_cuda_are_counted_on_the_cpu():
    """Stands in for one on MPS."""
    on_mps = Mock(shape=(3,), device=torch.device("mps"))
    on_mps.cpu.return_value = torch.tensor([0, 1, 1])
    counts = count_pairs(on_mps, truth_columns(np.array([0, 1, IGNORE]), 2, IGNORE), 2, IGNORE)
    assert counts.tolist() == [[1, 0], [0, 1]]
    assert counts.device.type == "cpu"


@pytest.mark.parametrize("num_classes", [255, 256, 300])
def test_classes_that_do_not_fit_into_eight_bits(num_classes):
    last = num_classes - 1
    truth = torch.tensor([last, 0, 65535, last])
    counts = confusion_matrix(torch.tensor([last, last, 0, 0]), truth, num_classes, 65535)
    assert counts.sum() == 3
    assert counts[last, last] == counts[last, 0] == counts[0, last] == 1


def test_a_single_class():
    metrics = summarise(np.array([[7]]), ["a"], [])
    assert metrics["mIoU"] == metrics["mIoU-S"] == metrics["pAcc"] == metrics["fwIoU"] == 100
    assert np.isnan([metrics["mIoU-U"], metrics["hIoU"]]).all()


def test_summary_by_hand():
    #                 truth: a  b  u
    confusion = np.array([[4, 1, 0], [0, 3, 2], [0, 0, 2]])
    metrics = summarise(confusion, NAMES, ["u"])
    assert metrics["unseen-as-seen"] == pytest.approx(50)
    assert metrics["seen-as-unseen"] == 0
    a, b, u = 4 / 5, 3 / 6, 2 / 4
    assert metrics["IoU-a"] == pytest.approx(100 * a)
    assert metrics["IoU-b"] == pytest.approx(100 * b)
    assert metrics["IoU-u"] == pytest.approx(100 * u)
    assert metrics["mIoU-S"] == pytest.approx(100 * (a + b) / 2)
    assert metrics["mIoU-U"] == pytest.approx(100 * u)
    assert metrics["mIoU"] == pytest.approx(100 * (a + b + u) / 3)
    assert metrics["hIoU"] == pytest.approx(100 * 2 * 0.65 * 0.5 / 1.15)
    assert metrics["pAcc"] == metrics["pACC"] == pytest.approx(75.0)
    assert metrics["fwIoU"] == pytest.approx(100 * (4 * a + 4 * b + 4 * u) / 12)
    assert metrics["mACC"] == pytest.approx(100 * (1 + 3 / 4 + 2 / 4) / 3)


def test_a_class_without_truth_is_left_out_but_its_predictions_count_as_errors():
    confusion = np.array([[4, 0, 0], [4, 0, 0], [0, 0, 2]])  # b is predicted, never true
    metrics = summarise(confusion, NAMES, ["u"])
    assert np.isnan(metrics["IoU-b"])
    assert metrics["mIoU-S"] == metrics["IoU-a"] == 50
    assert metrics["mIoU"] == 75


def test_undefined_metrics_are_nan_and_a_missed_class_gives_zero():
    no_unseen = summarise(np.diag([3, 2, 0]), NAMES, ["u"])
    for key in ("mIoU-U", "hIoU", "IoU-u", "unseen-as-seen"):
        assert np.isnan(no_unseen[key])
    assert no_unseen["mIoU-S"] == 100
    missed = summarise(np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0]]), NAMES, ["u"])
    assert missed["mIoU-U"] == missed["hIoU"] == 0
    empty = np.zeros((3, 3), int)
    assert np.isnan(pixel_accuracy(empty))
    assert np.isnan(mean_over_present(class_iou(empty), [0, 1, 2]))


def test_harmonic_mean():
    assert harmonic_mean(0.9, 0.45) == pytest.approx(0.6)
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert np.isnan(harmonic_mean(float("nan"), 0.5))


def test_unseen_things_and_stuff_are_told_apart_where_the_spec_does():
    names = ("dog", "cat", "cow", "sky", "sea")
    confusion = np.diag([4, 3, 2, 1, 1])
    confusion[0, 1] = 3  # half of cat is taken for dog
    metrics = summarise(confusion, names, ["cat", "cow", "sea"], ["dog", "cat", "cow"])
    assert metrics["mIoU-U-things"] == 75  # cat 50, cow 100
    assert metrics["mIoU-U-stuff"] == 100
    assert "mIoU-U-things" not in summarise(confusion, names, ["cat", "cow", "sea"])


def test_accuracy_of_groups_by_hand():
    """Columns are the truth: half of a (seen), all of b (unseen stuff), a quarter of c (thing)."""
    confusion, names = np.array([[2, 0, 1], [2, 5, 2], [0, 0, 1]]), ("a", "b", "c")
    metrics = summarise(confusion, names, ["b", "c"])
    assert (metrics["mACC-S"], metrics["mACC-U"]) == (50.0, 62.5)
    assert "mACC-U-things" not in metrics
    metrics = summarise(confusion, names, ["b", "c"], ["c"])
    assert (metrics["mACC-U-things"], metrics["mACC-U-stuff"]) == (25.0, 100.0)


def test_predicted_classes_without_truth_by_either_rule():
    """Ten pixels of a are right; of six of b one is given to u, which the truth lacks."""
    confusion = np.array([[10, 0, 0], [0, 5, 0], [0, 1, 0]])  # predicted x true
    metrics = summarise(confusion, NAMES, ["b", "u"])
    assert metrics["mIoU"] == pytest.approx(100 * (1 + 5 / 6) / 2)  # 91.67
    assert metrics["mIoU-absent0"] == pytest.approx(100 * (1 + 5 / 6 + 0) / 3)  # 61.11
    assert (metrics["mIoU-S"], metrics["mIoU-S-absent0"]) == (100, 100)
    assert metrics["mIoU-U"] == pytest.approx(100 * 5 / 6)
    assert metrics["mIoU-U-absent0"] == pytest.approx(100 * 5 / 12)
    assert metrics["hIoU"] == pytest.approx(100 * 2 * (5 / 6) / (1 + 5 / 6))
    assert metrics["hIoU-absent0"] == pytest.approx(100 * 2 * (5 / 12) / (1 + 5 / 12))
    assert np.isnan(metrics["IoU-u"])
    note = absent_as_zero_note(metrics)
    assert "mmsegmentation, zsseg and ZegFormer" in note
    assert "mIoU 61.11, mIoU-S 100.00, mIoU-U 41.67, hIoU 58.82" in note


def test_a_class_that_is_nowhere_counts_by_neither_rule():
    metrics = summarise(np.diag([3, 2, 0]), NAMES, ["u"])
    assert metrics["mIoU"] == metrics["mIoU-absent0"] == 100
    assert np.isnan([metrics["mIoU-U"], metrics["mIoU-U-absent0"], metrics["hIoU-absent0"]]).all()
    assert absent_as_zero_note(metrics) == ""


def test_a_group_without_truth_is_0_by_the_other_rule_if_it_is_predicted():
    metrics = summarise(np.array([[3, 0, 0], [0, 2, 0], [1, 0, 0]]), NAMES, ["u"])
    assert np.isnan([metrics["mIoU-U"], metrics["hIoU"]]).all()
    assert (metrics["mIoU-U-absent0"], metrics["hIoU-absent0"]) == (0, 0)
    assert "mIoU-U 0.00, hIoU 0.00" in absent_as_zero_note(metrics)


def test_both_rules_against_a_slow_reference():
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 9, (6, 6)) * rng.integers(0, 2, (6, 6))
    confusion[:, 4] = confusion[:, 5] = confusion[5] = 0
    plain, other = [], []
    for i in range(6):
        hit, truth, predicted = confusion[i, i], confusion[:, i].sum(), confusion[i].sum()
        if truth:
            plain.append(hit / (truth + predicted - hit))
        if truth or predicted:
            other.append(hit / (truth + predicted - hit))
    assert len(plain) < len(other) < 6
    metrics = summarise(confusion, list("abcdef"), ["e", "f"])
    assert metrics["mIoU"] == pytest.approx(100 * np.mean(plain))
    assert metrics["mIoU-absent0"] == pytest.approx(100 * np.mean(other))
