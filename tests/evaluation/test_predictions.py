"""Predictions on disk are in the ids that the user's own masks hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image
from pycocotools import mask

from zss_d2.data.files.encoding import read_labels
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator
from zss_d2.evaluation.predictions import (
    prediction_file,
    raw_ids,
    read_prediction,
    write_prediction,
)

FACTOR = 10


@pytest.fixture
def yard(tmp_path, monkeypatch) -> Path:
    """Own data whose masks hold 10, 20, 30 and 40; of two ids of the ground, 10 is the smaller."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    path = toy_custom.generate(tmp_path / "yard")
    for file in path.with_name("masks").iterdir():
        labels = np.asarray(Image.open(file))
        Image.fromarray(labels * FACTOR + FACTOR).save(file)
    mapping = "{10: ground, 20: disc, 30: square, 40: stripe, 0: 255, 99: ground}"
    path.write_text(f"raw_to_train: {mapping}\n{path.read_text()}")
    register_custom([path])
    return path


def truth_of(record: dict) -> torch.Tensor:
    """Train ids (H, W) of the record's mask."""
    metadata = MetadataCatalog.get(record["dataset_name"])
    return torch.tensor(read_labels(record["sem_seg_file_name"], metadata))


def predict(dataset: str, folder: Path, kind: str) -> None:
    """Write what a model that is always right predicts; void pixels are class 0."""
    evaluator = ZeroShotSemSegEvaluator(dataset, output_dir=str(folder), predictions=kind)
    number = len(MetadataCatalog.get(dataset).stuff_classes)
    for record in DatasetCatalog.get(dataset):
        truth = truth_of(record).long()
        labels = truth.where(truth < number, 0)
        scores = torch.nn.functional.one_hot(labels, number).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    evaluator.evaluate()


def written_as_png(folder: Path, dataset: str) -> dict[str, np.ndarray]:
    return {
        record["image_id"]: np.asarray(
            Image.open(prediction_file(folder, dataset, record["image_id"]))
        )
        for record in DatasetCatalog.get(dataset)
    }


def written_as_json(folder: Path, dataset: str) -> dict[str, np.ndarray]:
    path = folder / "predictions" / dataset / "sem_seg_predictions.json"
    maps: dict[str, np.ndarray] = {}
    for entry in json.loads(path.read_text()):
        where = mask.decode(entry["segmentation"]).astype(bool)
        image_id = Path(entry["file_name"]).stem
        maps.setdefault(image_id, np.zeros(where.shape, int))[where] = entry["category_id"]
    return maps


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(("kind", "read"), [("png", written_as_png), ("json", written_as_json)])
def test_own_raw_ids_come_back(yard, tmp_path, kind: str, read: Callable):
    predict("zss_yard_val", tmp_path / "run", kind)
    maps = read(tmp_path / "run", "zss_yard_val")
    assert sorted(maps) == ["yard_4", "yard_5"]
    for image_id, predicted in maps.items():
        original = np.asarray(Image.open(yard.with_name("masks") / f"{image_id}.png"))
        assert set(np.unique(original)) <= {10, 20, 30, 40}
        assert np.array_equal(predicted, original)


def test_what_is_read_back_are_the_labels(yard, tmp_path):
    predict("zss_yard_val", tmp_path, "png")
    ids = raw_ids(MetadataCatalog.get("zss_yard_val"))
    assert ids.tolist() == [10, 20, 30, 40]
    for record in DatasetCatalog.get("zss_yard_val"):
        path = prediction_file(tmp_path, "zss_yard_val", record["image_id"])
        assert np.array_equal(read_prediction(path, ids), truth_of(record))


def test_detectron2s_own_evaluator_writes_the_same_ids(yard, tmp_path):
    evaluator = SemSegEvaluator("zss_yard_val", output_dir=str(tmp_path))
    entries = []
    for record in DatasetCatalog.get("zss_yard_val"):
        entries += evaluator.encode_json_sem_seg(truth_of(record).numpy(), record["file_name"])
    assert {entry["category_id"] for entry in entries} == {10, 20, 30, 40}


def test_a_view_of_own_data_has_the_raw_ids_of_its_base(yard, tmp_path):
    fold = yard.with_name("fold.yaml")
    fold.write_text("name: yard_fold\nbase: yard.yaml\nhold_out: [disc]\n")
    register_custom([fold])
    predict("zss_yard_fold_val", tmp_path / "run", "png")
    for image_id, predicted in written_as_png(tmp_path / "run", "zss_yard_fold_val").items():
        original = np.asarray(Image.open(yard.with_name("masks") / f"{image_id}.png"))
        # The stripe, unseen in the base, is void in the view and cannot be predicted.
        assert np.array_equal(predicted, np.where(original == 40, 10, original))


@pytest.mark.parametrize("name", ["voc", "coco_stuff", "context60"])
def test_a_view_of_a_benchmark_has_the_raw_ids_of_the_benchmark(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    base = load_benchmark(name)
    path = tmp_path / "fold.yaml"
    path.write_text(f"name: {name}_fold\nbase: {name}\nhold_out: [{base.seen_names[1]!r}]\n")
    register_custom([path])
    smallest = {train: raw for raw, train in sorted(base.raw_to_train.items(), reverse=True)}
    for dataset, names in ((f"zss_{name}_val", base.classes), (f"zss_{name}_fold_val", None)):
        metadata = MetadataCatalog.get(dataset)
        expected = [smallest[base.classes.index(word)] for word in metadata.stuff_classes]
        assert tuple(metadata.stuff_classes) == (names or base.seen_names)
        assert raw_ids(metadata).tolist() == expected


def test_data_without_raw_ids_keeps_its_train_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    register_custom([toy_custom.generate(tmp_path / "plain")])
    assert raw_ids(MetadataCatalog.get("zss_yard_val")).tolist() == [0, 1, 2, 3]


def test_two_classes_never_share_a_raw_id():
    class Metadata(SimpleNamespace):
        def get(self, key):
            return getattr(self, key, None)

    metadata = Metadata(name="foreign", stuff_classes=["sky", "dog"])
    assert raw_ids(metadata).tolist() == [0, 1]
    metadata.stuff_dataset_id_to_contiguous_id = {1: 0}
    with pytest.raises(ZssError, match="foreign: several classes have the raw id 1"):
        raw_ids(metadata)


def test_a_prediction_of_other_classes_is_not_read_as_the_first_class(tmp_path):
    path = tmp_path / "old.png"
    write_prediction(path, np.array([[0, 1], [1, 2]]), np.array([0, 1, 2]))
    with pytest.raises(ZssError, match=r"old\.png: value 0 is the id of no class"):
        read_prediction(path, np.array([10, 1, 2]))
