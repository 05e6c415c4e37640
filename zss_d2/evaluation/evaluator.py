"""Detectron2's semantic segmentation evaluator with seen/unseen metrics."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from zss_d2.errors import ZssError
from zss_d2.evaluation.metrics import confusion_matrix, summarize

logger = logging.getLogger(__name__)


class ZeroShotSemSegEvaluator(SemSegEvaluator):
    """Reports pAcc, mIoU, mIoU-S, mIoU-U, hIoU and per-class IoU beside Detectron2's keys.

    Only the confusion matrix is kept, no prediction. The unseen classes are those of the metadata.
    """

    def __init__(self, dataset_name: str, distributed: bool = True, output_dir: str | None = None):
        super().__init__(dataset_name, distributed, output_dir)
        metadata = MetadataCatalog.get(dataset_name)
        self._unseen_names: Sequence[str] = metadata.unseen_classes
        self._thing_names: Sequence[str] = metadata.get("thing_classes", ())
        self._confusion = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)

    def reset(self) -> None:
        self._confusion[:] = 0

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping]) -> None:
        """Add images to the confusion matrix.

        Args:
            inputs: dicts with ``file_name``.
            outputs: dicts with ``sem_seg`` (K, H, W), the scores at the original size.

        Raises:
            ZssError: scores that do not fit the ground truth or the number of classes.
        """
        for item, output in zip(inputs, outputs, strict=True):
            scores = output["sem_seg"]
            file_name = item["file_name"]
            if scores.shape[0] != self._num_classes:
                raise ZssError(
                    f"{file_name}: {scores.shape[0]} score maps for the {self._num_classes} "
                    f"classes of {self._dataset_name}; the model was asked for another vocabulary"
                )
            prediction = scores.argmax(dim=0).cpu().numpy()
            truth_file = self.input_file_to_gt_file[file_name]
            truth = self.sem_seg_loading_fn(truth_file, dtype=np.int64)
            try:
                self._confusion += confusion_matrix(
                    prediction, truth, self._num_classes, self._ignore_label
                )
            except ValueError as error:
                raise ZssError(f"{truth_file}: {error}; prepare the data set again") from error

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """``{"sem_seg": metrics in percent}`` on the main process, None on the others."""
        confusion = self._confusion
        if self._distributed:
            confusion = np.sum(comm.all_gather(confusion), axis=0)
            if not comm.is_main_process():
                return None
        if not confusion.any():
            raise ZssError(f"{self._dataset_name}: no labelled pixel was evaluated")
        metrics = summarize(confusion, self._class_names, self._unseen_names, self._thing_names)
        logger.info("%s\n%s", self._dataset_name, format_table(metrics, self._unseen_names))
        return OrderedDict(sem_seg=metrics)


def format_table(metrics: Mapping[str, float], unseen_names: Sequence[str]) -> str:
    """Summary and per-class IoU as text; unseen classes are marked, absent ones are a dash."""

    def cell(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.2f}"

    keys = ("pAcc", "mIoU", "mIoU-S", "mIoU-U", "hIoU", "mIoU-U-things", "mIoU-U-stuff")
    keys = [key for key in keys if key in metrics]
    summary = tabulate([[cell(metrics[key]) for key in keys]], headers=keys, tablefmt="github")
    prefix = "IoU-"
    classes = [
        (key.removeprefix(prefix), cell(value))
        for key, value in metrics.items()
        if key.startswith(prefix)
    ]
    rows = [(name, "unseen" if name in unseen_names else "seen", value) for name, value in classes]
    return f"{summary}\n\n{tabulate(rows, headers=('class', '', 'IoU'), tablefmt='github')}"
