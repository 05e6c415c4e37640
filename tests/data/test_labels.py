"""Label maths against arrays computed by hand and against slow loops."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from zss_d2.data.labels import (
    UndefinedLabelError,
    check_labels,
    hide_unseen,
    histogram,
    remap,
)
from zss_d2.data.spec.benchmark import load_benchmark


def test_remap_by_hand():
    lut = np.array([255, 0, 1, -1, 2], np.int32)
    raw = np.array([[0, 1], [2, 4]], np.uint8)
    assert remap(raw, lut).tolist() == [[255, 0], [1, 2]]


def test_remap_of_voc_equals_a_loop_over_pixels():
    voc = load_benchmark("voc")
    raw = np.random.default_rng(0).choice([*range(21), 255], (17, 23)).astype(np.uint8)
    expected = [[voc.raw_to_train[int(value)] for value in row] for row in raw]
    assert remap(raw, voc.lut).tolist() == expected


def test_remap_counts_the_pixels_of_every_undefined_value():
    raw = np.zeros((4, 5), np.uint8)
    raw[0, :3], raw[1, 0] = 77, 21
    with pytest.raises(UndefinedLabelError) as caught:
        remap(raw, load_benchmark("voc").lut)
    assert caught.value.counts == {21: 1, 77: 3}
    assert str(caught.value) == "value 21 (1 pixels), value 77 (3 pixels)"


@pytest.mark.parametrize("value", [-1, 256, 65535])
def test_remap_refuses_values_outside_the_table(value):
    with pytest.raises(UndefinedLabelError) as caught:
        remap(np.full((1, 2), value, np.int32), load_benchmark("voc").lut)
    assert caught.value.counts == {value: 2}


def test_the_error_survives_the_way_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(UndefinedLabelError({77: 3})))
    assert error.counts == {77: 3}


def test_hide_unseen_by_hand_leaves_its_input_alone():
    labels = np.array([[0, 15], [19, 255]], np.uint8)
    hidden = hide_unseen(labels, (15, 19), 255)
    assert hidden.tolist() == [[0, 255], [255, 255]]
    assert hidden.dtype == np.uint8
    assert labels.tolist() == [[0, 15], [19, 255]]


@pytest.mark.parametrize(
    ("dtype", "ignore"), [(np.uint8, 255), (np.uint16, 65535), (np.int32, 65535)]
)
def test_hide_unseen_equals_a_loop_over_pixels(dtype, ignore):
    labels = np.random.default_rng(1).integers(0, 30, (11, 13)).astype(dtype)
    unseen = (3, 7, 28)
    expected = [[ignore if value in unseen else int(value) for value in row] for row in labels]
    assert hide_unseen(labels, unseen, ignore).tolist() == expected


def test_hide_unseen_without_unseen_classes_changes_nothing():
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert hide_unseen(labels, (), 255).tolist() == labels.tolist()


def test_the_histogram_by_hand():
    labels = np.array([[0, 2, 2], [255, 255, 0]], np.uint8)
    assert histogram(labels, 3, 255).tolist() == [2, 0, 2, 2]
    assert histogram(np.zeros((1, 1), np.uint16), 3, 255).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("name", ["voc", "voc21", "coco_stuff", "context59", "context60"])
def test_histograms_before_and_after_remapping_agree_exactly(name):
    benchmark = load_benchmark(name)
    raw = np.random.default_rng(2).choice(list(benchmark.raw_to_train), (40, 50)).astype(np.uint16)
    number = len(benchmark.classes)
    after = histogram(remap(raw, benchmark.lut), number, benchmark.ignore_label)
    before = np.bincount(raw.ravel())
    expected = [0] * number + [0]
    for value, count in enumerate(before):
        if count:
            train = benchmark.raw_to_train[value]
            expected[-1 if train == benchmark.ignore_label else train] += count
    assert after.tolist() == expected
    assert after.sum() == raw.size


def test_check_labels_accepts_ids_and_ignore_and_counts_the_rest():
    check_labels(np.array([[0, 19, 255]], np.uint8), 20, 255)
    with pytest.raises(UndefinedLabelError) as caught:
        check_labels(np.array([[20, 20, -1, 0]], np.int32), 20, 255)
    assert caught.value.counts == {-1: 1, 20: 2}
