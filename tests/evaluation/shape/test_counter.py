"""Counts that are added up while a GPU, here a pretended one, goes on."""

from types import SimpleNamespace

import numpy as np
import torch

from zss_d2.evaluation.shape.counter import ShapeCounter
from zss_d2.evaluation.shape.counts import shape_counts


class OnGpu:
    """Labels that arrive in CPU memory only when the GPU has been waited for."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, labels: np.ndarray):
        self.labels = torch.from_numpy(labels)
        self.sent: torch.Tensor | None = None

    def to(self, device: str, non_blocking: bool) -> torch.Tensor:
        assert (device, non_blocking) == ("cpu", True)
        self.sent = torch.zeros_like(self.labels)
        return self.sent

    def arrive(self) -> None:
        self.sent.copy_(self.labels)


def images(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and columns of a ground truth of 3 classes, 3 being void."""
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 3, (9, 11), np.uint8), rng.integers(0, 4, (9, 11), np.uint8))
        for _ in range(number)
    ]


def test_images_on_a_cpu_are_counted_at_once():
    counter = ShapeCounter(3, 255)
    wanted = 0
    for prediction, truth in images(3):
        counter.add(torch.from_numpy(prediction), truth)
        wanted += shape_counts(truth, prediction, 3)
        np.testing.assert_array_equal(counter.total(), wanted)
    assert counter.sent_px == 0


def test_images_on_a_gpu_are_counted_once_they_have_arrived():
    counter = ShapeCounter(3, 255)
    wanted, batch = 0, []
    for index, (prediction, truth) in enumerate(images(7)):
        batch.append(OnGpu(prediction))
        counter.add(batch[-1], truth)
        assert counter.sent_px == 99 * len(batch)
        wanted += shape_counts(truth, prediction, 3)
        if index % 3 == 2:
            for labels in batch:
                labels.arrive()
            counter.settle()
            assert counter.sent_px == 0
            batch = []
    batch[0].arrive()
    counter.settle()
    np.testing.assert_array_equal(counter.total(), wanted)
    np.testing.assert_array_equal(counter.total(), wanted)


def test_a_class_may_be_what_is_ignored():
    prediction, truth = images(1)[0]
    counter = ShapeCounter(3, 1)
    counter.add(torch.from_numpy(prediction), truth)
    without = np.where(truth == 1, 3, truth)
    np.testing.assert_array_equal(counter.total(), shape_counts(without, prediction, 3))
