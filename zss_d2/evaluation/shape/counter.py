"""Adds up the shape counts of a test set while a GPU goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from torch import Tensor

from zss_d2.evaluation.shape.counts import COLUMNS, shape_counts
from zss_d2.utils.cores import cpu_cores
from zss_d2.utils.transfer import fetched

# Threads that count what a GPU has labelled, at most.
_THREADS = 8


class ShapeCounter:
    """Counts of `zss_d2.evaluation.shape.counts`, added over images.

    Components are a matter for the CPU. Labels that are there already are counted at once. Those on
    a GPU are sent, a byte per pixel, and nobody waits for them before `settle`; threads count them
    while the GPU labels the next images.
    """

    def __init__(self, num_classes: int, ignore_label: int):
        self._num_classes = num_classes
        self._ignore_label = ignore_label
        self._total = np.zeros((num_classes, len(COLUMNS)), np.int64)
        self._sent: list[tuple[np.ndarray, Tensor]] = []
        self._counting: list[Future[np.ndarray]] = []
        self._pool: ThreadPoolExecutor | None = None

    @property
    def sent_px(self) -> int:
        """Pixels on their way from a GPU."""
        return sum(truth.size for truth, _ in self._sent)

    def add(self, labels: Tensor, columns: np.ndarray) -> None:
        """Take an image.

        Args:
            labels: (H, W), the prediction.
            columns: (H, W), of the ground truth, see `zss_d2.evaluation.metrics.truth_columns`.
        """
        if labels.device.type == "cuda":
            self._sent.append((columns, fetched(labels)))
        else:
            self._total += self._count(columns, labels.cpu())

    def settle(self) -> None:
        """Have what was sent counted; to be called when all work on the GPU has been waited for.

        It waits for the images of the call before.
        """
        self.total()
        if self._sent and self._pool is None:
            self._pool = ThreadPoolExecutor(min(_THREADS, len(cpu_cores())))
        self._counting = [self._pool.submit(self._count, *image) for image in self._sent]
        self._sent = []

    def total(self) -> np.ndarray:
        """Counts (K, columns) of all images that were settled."""
        for counted in self._counting:
            self._total += counted.result()
        self._counting = []
        return self._total

    def _count(self, columns: np.ndarray, labels: Tensor) -> np.ndarray:
        if self._ignore_label < self._num_classes:
            columns = np.where(columns == self._ignore_label, self._num_classes, columns)
        return shape_counts(columns, labels.numpy(), self._num_classes)
