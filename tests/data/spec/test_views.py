"""Views of a data set: the label maths, and the descriptions with their mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.conftest import ROOT
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.prepare.check_command import main as check
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.data.spec.views import hold_out
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator
from zss_d2.evaluation.predictions import raw_ids


@pytest.fixture
def fold(yard) -> Path:
    """A view of the six generated images."""
    path = yard.with_name("fold.yaml")
    path.write_text("name: yard_fold\nbase: yard.yaml\nhold_out: [disc]\n")
    return path


def masks(dataset: str) -> dict[str, np.ndarray]:
    return {
        record["image_id"]: read_labels(record["sem_seg_file_name"], MetadataCatalog.get(dataset))
        for record in DatasetCatalog.get(dataset)
    }


def test_unseen_classes_become_void_and_ids_close_up():
    voc = load_benchmark("voc")
    view = hold_out(voc, ["cat", "bird"])
    assert view.classes == voc.seen_names
    assert view.unseen_names == ("bird", "cat")
    for raw, train in voc.raw_to_train.items():
        name = (*voc.classes, *["void"] * 256)[train]
        expected = 255 if name in (*voc.unseen_names, "void") else view.classes.index(name)
        assert view.raw_to_train[raw] == expected
    assert hold_out(voc, ["dog"]).raw_to_train == view.raw_to_train
    assert set(view.synonyms) <= set(view.classes)


def test_a_view_of_own_data_shows_the_same_masks_without_the_unseen_class(fold):
    register_custom([fold.with_name("yard.yaml"), fold])
    metadata = MetadataCatalog.get("zss_yard_fold_train")
    assert metadata.stuff_classes == ["ground", "disc", "square"]
    assert metadata.unseen_classes == ["disc"]
    views = masks("zss_yard_fold_train")
    originals = masks("zss_yard_train")
    assert views.keys() == originals.keys() and len(views) == 4
    assert any((labels == 3).any() for labels in originals.values())
    for image_id, labels in originals.items():
        assert np.array_equal(views[image_id], np.where(labels == 3, 255, labels))


def test_a_view_of_raw_masks_goes_through_both_maps(fold):
    for path in fold.with_name("masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(labels * 10).save(path)
    yard = fold.with_name("yard.yaml")
    mapping = "raw_to_train: {0: stripe, 10: ground, 20: disc, 30: square}\n"
    yard.write_text(mapping + yard.read_text())
    register_custom([fold])
    for image_id, labels in masks("zss_yard_fold_val").items():
        original = np.asarray(Image.open(fold.with_name("masks") / f"{image_id}.png"))
        assert np.array_equal(labels, np.array([255, 0, 1, 2])[original // 10])


def test_a_benchmark_that_is_not_prepared_is_named_with_its_script(fold):
    fold.write_text("name: voc_fold\nbase: voc\nhold_out: [cat]\n")
    register_custom([fold])
    with pytest.raises(ZssError, match=r"zss/voc/.*no such folder; run `python datasets/prepare_v"):
        DatasetCatalog.get("zss_voc_fold_val")


def test_the_check_counts_what_the_view_shows(fold, capsys):
    assert check([str(fold)]) == 0
    out = capsys.readouterr().out
    assert "note: yard_fold: 3 classes, 2 seen, 1 unseen (disc), ignore label 255" in out
    assert "square" in out and "stripe" not in out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[disc]",
            "[disk]",
            "key 'hold_out': 'disk' is no seen class of yard (did you mean 'disc'",
        ),
        ("[disc]", "[stripe]", "key 'hold_out': 'stripe' is no seen class of yard"),
        ("[disc]", "[]", "key 'hold_out': the list is empty"),
        ("[disc]", "[disc, square, ground]", "key 'hold_out': every seen class is named; leave"),
        (
            "hold_out: [disc]",
            "unseen: [strip]",
            "key 'unseen': 'strip' is no class of yard (did yo",
        ),
        ("hold_out: [disc]", "unseen: []", "key 'unseen': the list is empty"),
        ("hold_out: [disc]", "unseen: [disc, disc]", "key 'unseen': 'disc' is listed 2 times"),
        (
            "hold_out: [disc]",
            "unseen: [disc, square, ground, stripe]",
            "every class is named; leave",
        ),
        ("hold_out: [disc]", "", "key 'top level': give either 'unseen', the unseen classes"),
        ("hold_out:", "unseen: [disc]\nhold_out:", "key 'top level': give either 'unseen', the"),
        (
            "hold_out:",
            "holdout:",
            "key 'top level': unknown key 'holdout' (did you mean 'hold_out'?)",
        ),
        (
            "base: yard.yaml",
            "base: vocc",
            "key 'base': unknown benchmark 'vocc' (did you mean 'voc'",
        ),
        ("base: yard.yaml", "base: fold.yaml", "key 'base': fold.yaml is a view itself"),
        ("base: yard.yaml", "base: gone.yaml", "gone.yaml: cannot read the data set's description"),
        ("name: yard_fold", "name: voc", "key 'name': 'voc' is a benchmark of the package"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_remedy(fold, old, new, expected):
    fold.write_text(fold.read_text().replace(old, new))
    with pytest.raises(ZssError) as caught:
        load_custom(fold)
    assert expected in str(caught.value)
    assert str(fold.parent) in str(caught.value)


@pytest.fixture
def resplit(yard) -> Path:
    """A view of the six generated images with two other unseen classes."""
    path = yard.with_name("resplit.yaml")
    path.write_text("name: resplit\nbase: yard.yaml\nunseen: [square, disc]\n")
    register_custom([yard, path])
    return path


def test_other_unseen_classes_are_three_lines(resplit):
    for split in ("train", "val"):
        metadata = MetadataCatalog.get(f"zss_resplit_{split}")
        assert metadata.stuff_classes == ["ground", "disc", "square", "stripe"]
        assert metadata.unseen_classes == ["disc", "square"]
        assert metadata.seen_classes == ["ground", "stripe"]
        views, originals = masks(f"zss_resplit_{split}"), masks(f"zss_yard_{split}")
        assert views.keys() == originals.keys()
        assert all(np.array_equal(views[key], originals[key]) for key in views)


def test_labels_of_the_new_unseen_classes_are_hidden_in_training(resplit):
    mapper = ZeroShotMapper(is_train=True, augmentations=[])
    for record in DatasetCatalog.get("zss_resplit_train"):
        labels = np.asarray(Image.open(record["sem_seg_file_name"]))
        assert {1, 2} & set(np.unique(labels))
        hidden = np.where(np.isin(labels, [1, 2]), 255, labels)
        assert np.array_equal(mapper(record)["sem_seg"].numpy(), hidden)


def test_metrics_are_those_of_the_new_split(resplit):
    evaluator = ZeroShotSemSegEvaluator("zss_resplit_val")
    for record in DatasetCatalog.get("zss_resplit_val"):
        truth = torch.from_numpy(np.array(Image.open(record["sem_seg_file_name"]))).long()
        labels = truth.where(truth != 2, 0)  # every square is taken for ground
        scores = torch.nn.functional.one_hot(labels, 4).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    metrics = evaluator.evaluate()["sem_seg"]
    assert metrics["mIoU-U"] == pytest.approx((100 + 0) / 2)
    assert metrics["mIoU-S"] == pytest.approx((metrics["IoU-ground"] + 100) / 2)


def test_other_unseen_classes_of_raw_masks_keep_the_raw_ids(resplit, tmp_path):
    yard = resplit.with_name("yard.yaml")
    for path in resplit.with_name("masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 10 + 10).save(path)
    mapping = "raw_to_train: {10: ground, 20: disc, 30: square, 40: stripe}\n"
    yard.write_text(mapping + yard.read_text())
    register_custom([resplit])
    assert raw_ids(MetadataCatalog.get("zss_resplit_val")).tolist() == [10, 20, 30, 40]
    for image_id, labels in masks("zss_resplit_val").items():
        original = np.asarray(Image.open(resplit.with_name("masks") / f"{image_id}.png"))
        assert np.array_equal(labels, original // 10 - 1)


ZS3 = sorted((ROOT / "datasets" / "zs3").glob("*.yaml"))


@pytest.mark.parametrize("path", ZS3, ids=lambda path: path.stem)
def test_the_splits_of_zs3_are_nested_and_of_the_number_they_say(path):
    view = load_custom(path)
    kind, number = view.benchmark.name.rsplit("_unseen", 1)
    assert path.stem == view.benchmark.name
    assert view.base == kind.removeprefix("zs3_")
    assert len(view.benchmark.unseen_names) == int(number)
    assert {"cow", "motorbike"} <= set(view.benchmark.unseen_names)
    smaller = path.with_stem(f"{kind}_unseen{int(number) - 2}")
    if smaller.exists():
        assert set(load_custom(smaller).benchmark.unseen_names) < set(view.benchmark.unseen_names)


def test_the_largest_split_of_zs3_for_context_is_the_usual_one():
    assert len(ZS3) == 10
    view = load_custom(ROOT / "datasets/zs3/zs3_context59_unseen10.yaml").benchmark
    assert view.unseen_names == load_benchmark("context59").unseen_names


def test_the_check_knows_a_view_with_other_unseen_classes(resplit, capsys):
    assert check([str(resplit)]) == 0
    note = "resplit: 4 classes, 2 seen, 2 unseen (disc, square), ignore label 255"
    assert note in capsys.readouterr().out
