"""Data sets that a run cannot read are found before it starts, and named with what there is."""

from __future__ import annotations

import re

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from zss_d2.data.spec.custom import register_custom
from zss_d2.data.spec.requirements import require_datasets, require_known
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator


def message(cfg, train: bool | None = None) -> str:
    with pytest.raises(ZssError) as caught:
        if train is None:
            require_known(cfg)
        else:
            require_datasets(cfg, train)
    text = str(caught.value)
    assert len(text) <= 320 or "/" in text  # paths are as long as they are
    return text


@pytest.mark.parametrize("key", ["DATASETS.TRAIN", "DATASETS.TEST"])
def test_unknown_names_are_answered_with_a_similar_one_or_some(key, make_cfg):
    text = message(make_cfg(key, ("zss_voc_vall",)))
    assert text.startswith(f"{key}: no data set 'zss_voc_vall' (did you mean 'zss_voc_val'?); ")
    assert text.endswith("voc has zss_voc_train, zss_voc_val")
    text = message(make_cfg(key, ("kitti",)))
    # The first of them may be one that another test has registered.
    assert re.search(r"no data set 'kitti'; known: zss_\w+_\w+, ", text)
    assert text.endswith(" more; a custom dataset also needs DATASETS.CUSTOM")
    assert "..." in message(make_cfg(key, ("zss_" + "x" * 296,)))
    require_known(make_cfg())


def test_a_description_without_the_split_names_those_it_has(yard, make_cfg):
    register_custom([yard])
    text = message(make_cfg("DATASETS.TEST", ("zss_yard_test",)))
    assert text.endswith("; yard has zss_yard_train, zss_yard_val")


def test_data_sets_of_others_that_lack_facts_are_named(make_cfg):
    DatasetCatalog.register("theirs", list)
    try:
        cfg = make_cfg("DATASETS.TEST", ("theirs",))
        assert (
            "'theirs' does not say its stuff_classes; describe it as a custom dataset"
            in message(cfg)
        )
        facts = {"stuff_classes": ["a", "b"], "seen_classes": ["a"], "unseen_classes": ["b"]}
        MetadataCatalog.get("theirs").set(**facts, ignore_label=255)
        require_datasets(cfg, train=False)  # where its files are is its own affair
    finally:
        DatasetCatalog.remove("theirs")
        MetadataCatalog.remove("theirs")


@pytest.mark.parametrize(
    ("overrides", "train", "expected"),
    [
        (("DATASETS.TRAIN", ()), True, "DATASETS.TRAIN is empty"),
        (("DATASETS.TRAIN", ()), False, "DATASETS.TRAIN is empty"),
        (("DATASETS.TEST", ()), False, "DATASETS.TEST is empty"),
        (
            ("DATASETS.TEST", (), "TEST.EVAL_PERIOD", 5, "SOLVER.CHECKPOINT_BEST", "hIoU"),
            True,
            "SOLVER.CHECKPOINT_BEST is 'hIoU' and DATASETS.TEST is empty",
        ),
        (
            ("TEST.EVAL_PERIOD", 5, "SOLVER.CHECKPOINT_BEST", "IoU-dogg"),
            True,
            "SOLVER.CHECKPOINT_BEST is 'IoU-dogg', but zss_voc_val has no class 'dogg' (did you",
        ),
    ],
)
def test_sets_that_a_run_cannot_do_without(overrides, train, expected, toy_voc, make_cfg):
    assert message(make_cfg(*overrides), train).startswith(expected)
    require_datasets(make_cfg("DATASETS.TEST", ()), train=True)


def test_sets_that_are_not_prepared_are_found_before_training(make_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    text = message(make_cfg(), train=True)
    assert text.startswith("DATASETS.TRAIN zss_voc_train: ")
    assert "no such folder; run `python datasets/prepare_voc.py`" in text
    assert message(make_cfg(), train=False).startswith("DATASETS.TEST zss_voc_val: ")


def test_a_test_set_with_a_hole_is_found_before_training(datasets, make_cfg):
    require_datasets(make_cfg(), train=True)
    victim = sorted(datasets.glob("zss/voc/annotations/val*/*.png"))[0]
    victim.unlink()
    text = message(make_cfg(), train=True)
    assert text.startswith("DATASETS.TEST zss_voc_val: ")
    assert f"no mask for 1 ({victim.stem}); run `python" in text


def test_an_empty_training_folder_is_found(datasets, make_cfg):
    for image in datasets.glob("zss/voc/images/train*/*"):
        image.unlink()
    assert "the folder holds no image" in message(make_cfg(), train=True)
    require_datasets(make_cfg(), train=False)  # a test takes only the classes from there


def test_masks_with_raw_ids_must_be_there_too(yard, make_cfg):
    data = yaml.safe_load(yard.read_text())
    data["raw_to_train"] = {i: i for i in (0, 1, 2, 3, 255)}
    yard.write_text(yaml.safe_dump(data))
    register_custom([yard])
    cfg = make_cfg("DATASETS.TRAIN", ("zss_yard_train",), "DATASETS.TEST", ("zss_yard_val",))
    require_datasets(cfg, train=True)
    (yard.parent / "masks/yard_5.png").unlink()
    assert "no mask for 1 (yard_5)" in message(cfg, train=True)


def test_a_set_whose_masks_are_pseudo_labels_is_trained_on_and_not_tested_on(yard, make_cfg):
    """By its description, or because zss predict has written its masks."""
    yard.write_text(yard.read_text() + "pseudo_labels: true\n")
    register_custom([yard])
    sets = ("DATASETS.TRAIN", ("zss_yard_train",), "DATASETS.TEST")
    require_datasets(make_cfg(*sets, ()), train=True)
    text = message(make_cfg(*sets, ("zss_yard_val",)), train=True)
    assert text.startswith(
        "DATASETS.TEST zss_yard_val: zss_yard_val: its description says that its"
    )
    yard.write_text(yard.read_text().replace("true", "false"))
    register_custom([yard])
    require_datasets(make_cfg(*sets, ("zss_yard_val",)), train=True)
    manifest = yard.parent / "masks/predict.json"
    manifest.write_text('{"kind": "zss predict"}')
    text = message(make_cfg(*sets, ("zss_yard_val",)), train=False)
    assert "are labels that zss predict has written" in text
    with pytest.raises(ZssError, match="labels that zss predict has written"):
        ZeroShotSemSegEvaluator("zss_yard_val")
    manifest.unlink()
    ZeroShotSemSegEvaluator("zss_yard_val")
