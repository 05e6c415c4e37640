"""Running a model over a data set, and semantic segmentation metrics."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.testing import print_csv_format as print_csv_format
from detectron2.evaluation.testing import verify_results as verify_results
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


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one; their results must not share a task."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[dict], outputs: Sequence[Any]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Union of all results; empty off rank 0."""
        merged: dict[str, dict[str, float]] = {}
        for evaluator in self._evaluators:
            results = evaluator.evaluate()
            if comm.is_main_process() and results is not None:
                twice = merged.keys() & results.keys()
                assert not twice, f"several evaluators report {sorted(twice)}"
                merged |= results
        return merged


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; its former mode comes back at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def inference_on_dataset(
    model: nn.Module,
    data_loader: Any,
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
) -> dict[str, Any]:
    """Run the model over a loader that has a length, in eval mode, and evaluate.

    Logs progress and time left every five seconds. Returns the evaluator's results, {} for None.
    """
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    total = len(data_loader)
    _logger.info("Start inference on %d batches", total)
    start = logged = perf_counter()
    with inference_context(model), torch.no_grad():
        for done, inputs in enumerate(data_loader, start=1):
            evaluator.process(inputs, model(inputs))
            if (now := perf_counter()) - logged > 5:
                logged = now
                eta = timedelta(seconds=int((now - start) / done * (total - done)))
                _logger.info("Inference done %d/%d. ETA=%s", done, total, eta)
    spent = perf_counter() - start
    _logger.info("Total inference time: %.2f s (%.4f s / batch)", spent, spent / max(total, 1))
    return evaluator.evaluate() or {}


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
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
    ) -> None:
        meta = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._cpu_device = torch.device("cpu")
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
            predicted = output["sem_seg"].argmax(dim=0).to(self._cpu_device).numpy()
            mask_file = self.input_file_to_gt_file[record["file_name"]]
            truth = self.sem_seg_loading_fn(mask_file, dtype=int)
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
