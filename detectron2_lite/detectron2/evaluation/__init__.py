"""Running a model over a data set, and semantic segmentation metrics."""

import json
import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from detectron2._slice import describe_missing
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.testing import print_csv_format as print_csv_format
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from torch import nn

_logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Collects what a model says about a data set, batch by batch, and sums it up."""

    def reset(self) -> None: ...
    def process(self, inputs: Sequence[dict], outputs: Sequence[Any]) -> None: ...

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{task: {metric: value}}; None where another process has the result."""


@torch.no_grad()
def inference_on_dataset(
    model: nn.Module, data_loader: Any, evaluator: DatasetEvaluator
) -> dict[str, Any]:
    """Run the model over a loader that has a length, in eval mode, and evaluate.

    Logs progress and time left every five seconds. Returns the evaluator's results, {} for None.
    """
    if not isinstance(evaluator, DatasetEvaluator):
        raise NotImplementedError(describe_missing("inference_on_dataset without one evaluator"))
    evaluator.reset()
    total = len(data_loader)
    _logger.info("Start inference on %d batches", total)
    start = logged = perf_counter()
    was_training = model.training
    model.eval()
    try:
        for done, inputs in enumerate(data_loader, start=1):
            evaluator.process(inputs, model(inputs))
            if (now := perf_counter()) - logged > 5:
                logged = now
                eta = timedelta(seconds=int((now - start) / done * (total - done)))
                _logger.info("Inference done %d/%d. ETA=%s", done, total, eta)
    finally:
        model.train(was_training)
    spent = perf_counter() - start
    _logger.info("Total inference time: %.2f s (%.4f s / batch)", spent, spent / max(total, 1))
    return evaluator.evaluate() or {}


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, fwIoU, mACC, pACC, IoU-<class>, ACC-<class> in percent, from one confusion matrix.

    Classes that the ground truth lacks have NaN and do not enter the means; ignored pixels count
    for nothing. The data set's metadata give ``stuff_classes`` and ``ignore_label``.

    Args:
        distributed: sum up over all processes.
        output_dir: gets sem_seg_predictions.json (run-length encoded masks); None: no file.
    """

    def __init__(
        self, dataset_name: str, distributed: bool = True, output_dir: str | None = None
    ) -> None:
        meta = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
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
        self._ignore_label = meta.ignore_label

    def reset(self) -> None:
        """Empty the confusion matrix (rows: predicted, columns: true; the last one is ignored)."""
        self._conf_matrix = np.zeros((self._num_classes + 1,) * 2, dtype=np.int64)
        self._predictions: list[dict] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Add images; inputs have "file_name", outputs "sem_seg" scores (K, H, W).

        Raises ValueError if a mask has a label that is neither a class nor the ignored one.
        """
        for record, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(dim=0).cpu().numpy()
            mask_file = self.input_file_to_gt_file[record["file_name"]]
            with PathManager.open(mask_file, "rb") as file:
                truth = np.asarray(Image.open(file), dtype=int)
            truth = np.where(truth == self._ignore_label, self._num_classes, truth)
            unknown = truth[(truth < 0) | (truth > self._num_classes)]
            if unknown.size:
                raise ValueError(f"{mask_file} has the unknown label {unknown[0]}")
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
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_predictions.json")
            with PathManager.open(path, "w") as file:
                json.dump(self._predictions, file)
        results = {"sem_seg": _metrics(self._conf_matrix, self._class_names)}
        _logger.info(results)
        return results

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """One run-length encoded mask in COCO's format per class in a label map (H, W)."""
        encoded = []
        for label in np.unique(sem_seg).tolist():
            runs = pycocotools.mask.encode(np.asfortranarray(sem_seg == label, dtype=np.uint8))
            runs["counts"] = runs["counts"].decode("ascii")
            category = (self._contiguous_id_to_dataset_id or {}).get(label, label)
            encoded.append(
                {"file_name": input_file_name, "category_id": category, "segmentation": runs}
            )
        return encoded


def _metrics(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Metrics in percent of a confusion matrix (K + 1, K + 1), predicted x true, last = ignored."""
    counts = confusion[:-1, :-1].astype(float)
    hits, true, claimed = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    present = np.count_nonzero(true)
    with np.errstate(divide="ignore", invalid="ignore"):
        acc = hits / true
        iou = np.where(true > 0, hits / (true + claimed - hits), np.nan)
        metrics = {
            "mIoU": np.nansum(iou) / present,
            "fwIoU": np.nansum(iou * true) / true.sum(),
            **{f"IoU-{name}": value for name, value in zip(class_names, iou, strict=True)},
            "mACC": np.nansum(acc) / present,
            "pACC": hits.sum() / true.sum(),
            **{f"ACC-{name}": value for name, value in zip(class_names, acc, strict=True)},
        }
    return {name: 100 * float(value) for name, value in metrics.items()}
