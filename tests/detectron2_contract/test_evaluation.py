"""Evaluators: metrics by hand, the inference loop, printing."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    DatasetEvaluator,
    SemSegEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.evaluation.testing import flatten_results_dict
from PIL import Image
from torch import nn

TRUTH = np.array([[0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 0, 1, 2]])
# Ignored pixel apart, 2 of 3 cats and 3 of 4 dogs are hit; 3 pixels are called cat, 4 dog.
EXPECTED = {
    "IoU-cat": 100 * 2 / 4,
    "IoU-dog": 100 * 3 / 5,
    "IoU-cow": math.nan,
    "mIoU": 100 * (2 / 4 + 3 / 5) / 2,
    "fwIoU": 100 * (3 * 2 / 4 + 4 * 3 / 5) / 7,
    "ACC-cat": 100 * 2 / 3,
    "ACC-dog": 100 * 3 / 4,
    "ACC-cow": math.nan,
    "mACC": 100 * (2 / 3 + 3 / 4) / 2,
    "pACC": 100 * 5 / 7,
}


def scores(labels: np.ndarray, classes: int = 3) -> torch.Tensor:
    """(classes, H, W), highest at the label of each pixel."""
    return nn.functional.one_hot(torch.as_tensor(labels), classes).permute(2, 0, 1).float()


@pytest.fixture
def dataset(tmp_path):
    """Name of a data set with one image of three classes, the last of which is absent."""
    name = "contract_evaluation"
    mask_file = tmp_path / "truth.png"
    Image.fromarray(TRUTH).save(mask_file)
    records = [{"file_name": "a.jpg", "sem_seg_file_name": str(mask_file)}]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=["cat", "dog", "cow"], ignore_label=255)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def evaluate(evaluator: SemSegEvaluator, predicted: np.ndarray) -> dict[str, float]:
    evaluator._compute_boundary_iou = False
    evaluator.reset()
    evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": scores(predicted)}])
    return evaluator.evaluate()["sem_seg"]


def test_sem_seg_metrics(dataset):
    evaluator = SemSegEvaluator(dataset)
    metrics = evaluate(evaluator, PREDICTED)
    assert metrics == pytest.approx(EXPECTED, nan_ok=True)
    assert evaluator._conf_matrix.tolist() == [
        [2, 1, 0, 0],
        [1, 3, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert list(metrics)[:2] == ["mIoU", "fwIoU"]


def test_classes_absent_from_the_truth_stay_out_of_the_means(dataset):
    """Two pixels of class 1 are called class 2, which costs class 1 but is no third mean value."""
    predicted = np.where(TRUTH == 255, 0, TRUTH).astype(int)
    predicted[0, 2:] = 2
    metrics = evaluate(SemSegEvaluator(dataset), predicted)
    assert metrics["mIoU"] == pytest.approx(100 * (1 + 2 / 4) / 2)
    assert math.isnan(metrics["IoU-cow"])


def test_reset_starts_again(dataset):
    evaluator = SemSegEvaluator(dataset)
    evaluate(evaluator, 1 - np.minimum(PREDICTED, 1))
    assert evaluate(evaluator, PREDICTED) == pytest.approx(EXPECTED, nan_ok=True)


def test_attributes_for_subclasses(dataset):
    evaluator = SemSegEvaluator(dataset, distributed=False, output_dir="somewhere")
    assert evaluator._dataset_name == dataset
    assert evaluator._distributed is False
    assert evaluator._output_dir == "somewhere"
    assert evaluator._class_names == ["cat", "dog", "cow"]
    assert (evaluator._num_classes, evaluator._ignore_label) == (3, 255)
    assert evaluator._contiguous_id_to_dataset_id is None
    assert list(evaluator.input_file_to_gt_file) == ["a.jpg"]


@pytest.mark.parametrize("raw_ids", [None, {11: 0, 12: 1, 13: 2}])
def test_predictions_are_written(dataset, tmp_path, raw_ids):
    if raw_ids:
        MetadataCatalog.get(dataset).stuff_dataset_id_to_contiguous_id = raw_ids
    evaluate(SemSegEvaluator(dataset, output_dir=str(tmp_path / "results")), PREDICTED)
    entries = json.loads((tmp_path / "results" / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in entries] == list(raw_ids or (0, 1, 2))
    for label, entry in enumerate(entries):
        assert entry["file_name"] == "a.jpg"
        decoded = pycocotools.mask.decode(entry["segmentation"])
        assert (decoded == (label == PREDICTED)).all()


class Count(DatasetEvaluator):
    """Counts images and remembers the mode of the model."""

    def __init__(self, model: nn.Module | None = None, task: str = "count"):
        self.model = model
        self.task = task

    def reset(self):
        self.images = 0
        self.modes = set()

    def process(self, inputs, outputs):
        assert outputs == [x + 1 for x in inputs]
        self.images += len(inputs)
        if self.model is not None:
            self.modes.add((self.model.training, torch.is_grad_enabled()))

    def evaluate(self):
        return {self.task: {"images": self.images}}


class AddOne(nn.Module):
    def forward(self, batch):
        return [x + 1 for x in batch]


@pytest.mark.parametrize("training", [True, False])
def test_inference_loop(training):
    model = AddOne().train(training)
    evaluator = Count(model)
    batches = [[1, 2], [3], [4, 5]] * 5
    assert inference_on_dataset(model, batches, evaluator) == {"count": {"images": 25}}
    assert evaluator.modes == {(False, False)}
    assert model.training is training
    assert torch.is_grad_enabled()


def test_no_result_becomes_an_empty_dict():
    class Silent(Count):
        def evaluate(self):
            return None

    assert inference_on_dataset(AddOne(), [[1]], Silent()) == {}


def test_print_csv_format(caplog, monkeypatch):
    # An earlier set-up of the logs may have cut this logger off.
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    with caplog.at_level(logging.INFO):
        print_csv_format({"sem_seg": {"mIoU": 12.34567, "IoU-cat": 1.0, "pACC": 50.0}})
    # A set, as some versions of pytest record a message twice.
    text = {record.getMessage() for record in caplog.records}
    assert {line for line in text if "mIoU" in line} == {"copypaste: mIoU,pACC"}
    assert "copypaste: 12.3457,50.0000" in text


def test_flatten_results():
    assert flatten_results_dict({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {
        "a/b/c": 1,
        "a/d": 2,
        "e": 3,
    }
