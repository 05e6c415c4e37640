"""Detectron2's semantic segmentation evaluator with seen/unseen metrics."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from tabulate import tabulate
from torch import Tensor

from zss_d2.data.files.encoding import MaskEncoding
from zss_d2.data.files.predictions import require_ground_truth
from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import (
    ImageCounts,
    ImageEntry,
    StoredCounts,
    StoredShapes,
    counts_file,
    image_key,
    sparse,
    write_counts,
)
from zss_d2.evaluation.metrics import (
    absent_as_zero_note,
    count_pairs,
    summarise,
    truth_columns,
)
from zss_d2.evaluation.predictions import prediction_file, raw_ids, write_prediction
from zss_d2.evaluation.results import check_dataset_name
from zss_d2.evaluation.shape.counter import ShapeCounter
from zss_d2.evaluation.shape.metrics import shape_rows, summarise_shape
from zss_d2.modeling.inference import NanScoresError
from zss_d2.modeling.inference.argmax import LabelsNow, labels_now
from zss_d2.utils.cores import cpu_cores
from zss_d2.utils.text import one_line
from zss_d2.utils.writing import write_atomic

logger = logging.getLogger(__name__)


# Threads that read the ground truth of a batch, at most.
READERS = 8
# Confusion matrices of single images that wait on a GPU: at most so many, and so many numbers.
_PENDING = 64
_PENDING_NUMBERS = 1 << 24
# Pixels of predictions on their way from a GPU, at most.
_PENDING_PX = 1 << 26


class _Counted(NamedTuple):
    """What was counted of an image, where its prediction is."""

    key: str
    file_name: str
    counts: Tensor  # (K, K) int64
    is_nan: Tensor  # () bool: its scores are, so that the counts mean nothing


def _most_pending(counts: Tensor) -> int:
    """Images that are counted before anybody waits for it."""
    return 1 if counts.device.type == "cpu" else min(_PENDING, _PENDING_NUMBERS // counts.numel())


class ZeroShotSemSegEvaluator(SemSegEvaluator):
    """Reports pAcc, mIoU, mIoU-S, mIoU-U, hIoU and per-class IoU beside Detectron2's keys.

    Pixels are counted where the prediction is; on a GPU nobody waits for that but after many
    images. No prediction is kept unless it is to be written. The unseen classes are those of the
    metadata. Detectron2's `process` and `evaluate` would encode every prediction, and on upstream
    compute boundary IoU, whether wanted or not.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        protocol: str = "",
        per_image: bool = False,
        predictions: str = "none",
        fragmentation: bool = False,
    ):
        """
        Args:
            dataset_name: registered with ``stuff_classes``, ``unseen_classes``, ``ignore_label``.
            distributed: add up the counts of all processes.
            output_dir: folder of the run, which gets the counts (`zss_d2.evaluation.counts`) and
                the predictions; None: no file is written.
            protocol: how images are tested, for the heading of the logged table.
            per_image: keep the (sparse) confusion matrix of every image, for intervals.
            predictions: what to write of them: "none", "png" or "json", as TEST.PREDICTIONS.
            fragmentation: measure the shape of regions too (`zss_d2.evaluation.shape.metrics`).

        Raises:
            ZssError: its ground truth was made by a model; the data set holds no image, has a name
                that results.json cannot hold, or what is kept of two images has one name.
        """
        check_dataset_name(dataset_name)
        super().__init__(dataset_name, distributed, output_dir)
        if not self.input_file_to_gt_file:
            raise ZssError(f"{dataset_name} holds no image; prepare the data set again")
        metadata = MetadataCatalog.get(dataset_name)
        folders = {Path(file).parent for file in self.input_file_to_gt_file.values()}
        require_ground_truth(dataset_name, sorted(folders), metadata.get("pseudo_labels", False))
        self._unseen_names: Sequence[str] = metadata.unseen_classes
        self._thing_names: Sequence[str] = metadata.get("thing_classes", ())
        self._encoding = MaskEncoding.of(metadata)
        self._raw_ids = raw_ids(metadata)
        # Read by encode_json_sem_seg.
        self._contiguous_id_to_dataset_id = dict(enumerate(self._raw_ids.tolist()))
        self._protocol = protocol
        self._per_image = per_image
        self._fragmentation = fragmentation
        self._write_predictions = predictions if output_dir else "none"
        if per_image or self._write_predictions == "png":
            _check_keys(dataset_name)
        self.reset()

    def reset(self) -> None:
        """Forget all images; Detectron2's part are its confusion matrix and predictions."""
        super().reset()
        self._done: list[str] = []
        self._images: list[ImageEntry] = []
        self._pending: list[_Counted] = []
        self._shapes = ShapeCounter(self._num_classes, self._ignore_label)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping]) -> None:
        """Add images to the counts.

        Args:
            inputs: dicts with ``file_name`` and, if the data set has it, ``image_id``.
            outputs: dicts with ``sem_seg`` (K, H, W), the scores at the original size.

        Raises:
            ZssError: scores that do not fit the ground truth or the number of classes, or NaN; a
                GPU is asked about NaN up to `_PENDING` images later.
        """
        files = [self.input_file_to_gt_file[item["file_name"]] for item in inputs]
        for item, output, columns in zip(inputs, outputs, self._truths(files), strict=True):
            scores = output["sem_seg"]
            file_name = item["file_name"]
            if len(scores.shape) != 3 or scores.shape[0] != self._num_classes:
                raise ZssError(
                    f"{file_name}: scores of shape {tuple(scores.shape)} for the "
                    f"{self._num_classes} classes of {self._dataset_name}; the model was asked "
                    "for another vocabulary"
                )
            try:
                best = labels_now(scores)
            except NanScoresError as error:
                raise ZssError(f"{file_name}: {error}") from error
            self._count(item, best, columns)
            self._done.append(file_name)
            if self._write_predictions != "none":
                self._keep_prediction(item, best.labels.cpu().numpy())

    def _truths(self, files: Sequence[str]) -> Iterator[np.ndarray]:
        """Columns of the ground truth, file by file, see `truth_columns`; read in threads."""
        if len(files) < 2:
            yield from map(self._read_truth, files)
            return
        with ThreadPoolExecutor(min(len(files), READERS, len(cpu_cores()))) as pool:
            yield from pool.map(self._read_truth, files)

    def _read_truth(self, file: str) -> np.ndarray:
        truth = self._encoding.read(file)
        try:
            return truth_columns(truth, self._num_classes, self._ignore_label)
        except ValueError as error:
            raise ZssError(f"{file}: {error}; {self._encoding.remedy}") from error

    def _count(self, item: Mapping[str, Any], best: LabelsNow, columns: np.ndarray) -> None:
        try:
            counts = count_pairs(best.labels, columns, self._num_classes, self._ignore_label)
        except ValueError as error:
            truth_file = self.input_file_to_gt_file[item["file_name"]]
            raise ZssError(f"{truth_file}: {error}; {self._encoding.remedy}") from error
        self._pending.append(_Counted(image_key(item), item["file_name"], counts, best.is_nan))
        if self._fragmentation:
            self._shapes.add(best.labels, columns)
        if len(self._pending) >= _most_pending(counts) or self._shapes.sent_px > _PENDING_PX:
            self._settle()

    def _settle(self) -> None:
        """Add up what was counted where the predictions are, and wait for it there."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        damaged = torch.stack([image.is_nan for image in pending]).tolist()
        counts = torch.stack([image.counts for image in pending]).numpy(force=True)
        for image, of_image, is_nan in zip(pending, counts, damaged, strict=True):
            if is_nan:
                raise ZssError(f"{image.file_name}: {NanScoresError()}")
            # Rows are predictions there as well; the last column, of ignored pixels, stays empty.
            self._conf_matrix[:-1, :-1] += of_image
            if self._per_image:
                self._images.append(sparse(image.key, of_image))
        self._shapes.settle()

    def _keep_prediction(self, item: Mapping[str, Any], labels: np.ndarray) -> None:
        if self._write_predictions == "png":
            folder = Path(self._output_dir)
            path = prediction_file(folder, self._dataset_name, image_key(item))
            write_prediction(path, labels, self._raw_ids)
        else:
            self._predictions += self.encode_json_sem_seg(labels, item["file_name"])

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """``{"sem_seg": metrics in percent}`` on the main process, None on the others.

        Raises:
            ZssError: not every image was evaluated exactly once, or none has a labelled pixel.
        """
        self._settle()
        shapes = self._shapes.total()
        mine = self._conf_matrix[:-1, :-1], self._done, self._images, self._predictions, shapes
        shares = comm.gather(mine) if self._distributed else [mine]
        if self._distributed and not comm.is_main_process():
            return None
        matrices, done, images, predictions, shapes = zip(*shares, strict=True)
        self._check_complete(Counter(chain.from_iterable(done)))
        confusion = np.sum(matrices, axis=0)
        if not confusion.any():
            raise ZssError(f"{self._dataset_name}: no labelled pixel was evaluated")
        of_shapes = None
        if self._fragmentation:
            of_shapes = StoredShapes(np.sum(shapes, axis=0), len(self.input_file_to_gt_file))
        if self._output_dir:
            per_image = chain.from_iterable(images)
            self._write(confusion, per_image, of_shapes, chain.from_iterable(predictions))
        metrics = summarise(confusion, self._class_names, self._unseen_names, self._thing_names)
        if of_shapes:
            metrics |= summarise_shape(*of_shapes, self._class_names, self._unseen_names)
        heading = " | ".join(filter(None, (self._dataset_name, self._protocol)))
        logger.info("%s\n%s", heading, format_table(metrics, self._unseen_names))
        return OrderedDict(sem_seg=metrics)

    def _check_complete(self, done: Counter[str]) -> None:
        """Samplers that repeat images to give every process as many would falsify the counts."""
        name, total = self._dataset_name, len(self.input_file_to_gt_file)
        file_name, times = max(done.items(), key=lambda pair: pair[1], default=("", 0))
        if times > 1:
            raise ZssError(f"{name}: {file_name} was evaluated {times} times; use InferenceSampler")
        if len(done) != total:
            raise ZssError(f"{name}: {len(done)} of {total} images were evaluated; test all of it")

    def _write(
        self, confusion: np.ndarray, images: Any, shapes: StoredShapes | None, predictions: Any
    ) -> None:
        folder = Path(self._output_dir)
        per_image = ImageCounts.join(images, self._num_classes) if self._per_image else None
        names = tuple(self._class_names), tuple(self._unseen_names)
        write_counts(
            counts_file(folder, self._dataset_name),
            StoredCounts(confusion, *names, per_image, shapes),
        )
        if self._write_predictions == "json":
            text = json.dumps(list(predictions))
            path = folder / "predictions" / self._dataset_name / "sem_seg_predictions.json"
            write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _check_keys(dataset_name: str) -> None:
    """Raise `ZssError` where `image_key` is the same for two images."""
    files: dict[str, str] = {}
    for record in DatasetCatalog.get(dataset_name):
        other = files.setdefault(image_key(record), record["file_name"])
        if other != record["file_name"]:
            raise ZssError(
                f"{dataset_name}: what is kept of {other} and {record['file_name']} would have one "
                f"name, {image_key(record)}; give the records an image_id of their own"
            )


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
    rows = [
        (one_line(name).replace("|", "\\|"), "unseen" if name in unseen_names else "seen", value)
        for name, value in classes
    ]
    # The first column is text, also where a class is called 007.
    table = tabulate(rows, headers=("class", "", "IoU"), tablefmt="github", disable_numparse=[0])
    shape = tabulate(shape_rows(metrics), headers="firstrow", tablefmt="github")
    return "\n\n".join(filter(None, (summary, absent_as_zero_note(metrics), shape, table)))
