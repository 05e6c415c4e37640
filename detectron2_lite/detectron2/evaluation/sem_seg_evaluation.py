"""Semantic segmentation metrics."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.evaluator import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image

_logger = logging.getLogger(__name__)


def load_image_into_numpy_array(filename: str, dtype: Any = None) -> np.ndarray:
    """Pixels of an image file, (H, W) for masks."""
    with PathManager.open(filename, "rb") as file:
        return np.asarray(Image.open(file), dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, fwIoU, mACC, pACC, IoU-<class>, ACC-<class> in percent, from one confusion matrix.

    Classes that the ground truth lacks have NaN and do not enter the means; ignored pixels count
    for nothing. The data set's metadata give ``stuff_classes`` and ``ignore_label``.

    Args:
        distributed: sum up over all processes.
        output_dir: gets sem_seg_predictions.json (run-length encoded masks); None: no file.
        sem_seg_loading_fn: called as ``fn(file_name, dtype=int)``.
        num_classes, ignore_label: replace the metadata's; kept for old callers.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
        num_classes: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        meta = MetadataCatalog.get(dataset_name)
        self._logger = _logger
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
        self._compute_boundary_iou = False
        self.sem_seg_loading_fn = sem_seg_loading_fn
        self.input_file_to_gt_file = {
            record["file_name"]: record["sem_seg_file_name"]
            for record in DatasetCatalog.get(dataset_name)
        }
        to_contiguous = meta.get("stuff_dataset_id_to_contiguous_id")
        self._contiguous_id_to_dataset_id = to_contiguous and {
            contiguous: raw for raw, contiguous in to_contiguous.items()
        }
        self._class_names = meta.stuff_classes
        self._num_classes = len(self._class_names)
        assert num_classes in (None, self._num_classes), (
            f"{dataset_name} has {self._num_classes} classes, not {num_classes}"
        )
        self._ignore_label = meta.ignore_label if ignore_label is None else ignore_label

    def reset(self) -> None:
        """Empty the confusion matrix (rows: predicted, columns: true; the last one is ignored)."""
        self._conf_matrix = np.zeros((self._num_classes + 1,) * 2, dtype=np.int64)
        self._predictions: list[dict] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Add images; inputs have "file_name", outputs "sem_seg" scores (K, H, W).

        Raises:
            ValueError: a mask has a label that is neither a class nor the ignored one.
        """
        for record, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(dim=0).to(self._cpu_device).numpy()
            mask_file = self.input_file_to_gt_file[record["file_name"]]
            truth = self.sem_seg_loading_fn(mask_file, dtype=int)
            truth = np.where(truth == self._ignore_label, self._num_classes, truth)
            if truth.min() < 0 or truth.max() > self._num_classes:
                known = (truth >= 0) & (truth <= self._num_classes)
                raise ValueError(f"{mask_file} has the unknown label {truth[~known][0]}")
            pairs = predicted.reshape(-1) * (self._num_classes + 1) + truth.reshape(-1)
            counts = np.bincount(pairs, minlength=self._conf_matrix.size)
            self._conf_matrix += counts.reshape(self._conf_matrix.shape)
            if self._output_dir:
                self._predictions += self.encode_json_sem_seg(predicted, record["file_name"])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{"sem_seg": metrics}; None off rank 0 of a distributed evaluation."""
        if self._distributed:
            matrices = comm.all_gather(self._conf_matrix)
            predictions = comm.all_gather(self._predictions)
            if not comm.is_main_process():
                return None
            self._conf_matrix = np.sum(matrices, axis=0)
            self._predictions = list(chain.from_iterable(predictions))
        metrics = sem_seg_metrics(self._conf_matrix, self._class_names)
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            with PathManager.open(path + ".tmp", "w") as file:
                json.dump(self._predictions, file)
            os.replace(path + ".tmp", path)
        results = {"sem_seg": metrics}
        self._logger.info(results)
        return results

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """One run-length encoded mask in COCO's format per class in a label map (H, W)."""
        encoded = []
        for label in np.unique(sem_seg).tolist():
            ids = self._contiguous_id_to_dataset_id
            mask = np.asfortranarray(sem_seg == label, dtype=np.uint8)
            runs = pycocotools.mask.encode(mask)
            runs["counts"] = runs["counts"].decode("ascii")
            encoded.append(
                {
                    "file_name": input_file_name,
                    "category_id": label if ids is None else ids[label],
                    "segmentation": runs,
                }
            )
        return encoded


def sem_seg_metrics(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Metrics in percent of a confusion matrix (K + 1, K + 1), predicted x true, last = ignored."""
    counts = confusion[:-1, :-1].astype(float)
    hits, true, claimed = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    present = true > 0
    acc, iou = np.full_like(true, np.nan), np.full_like(true, np.nan)
    acc[present] = hits[present] / true[present]
    iou[present] = hits[present] / (true + claimed - hits)[present]
    labelled = true.sum() if present.any() else np.nan
    metrics = {
        "mIoU": iou[present].sum() / (present.sum() or np.nan),
        "fwIoU": (iou[present] * true[present]).sum() / labelled,
        **{f"IoU-{name}": value for name, value in zip(class_names, iou, strict=True)},
        "mACC": acc[present].sum() / (present.sum() or np.nan),
        "pACC": hits.sum() / labelled,
        **{f"ACC-{name}": value for name, value in zip(class_names, acc, strict=True)},
    }
    return {name: 100 * float(value) for name, value in metrics.items()}
