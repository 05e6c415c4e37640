"""The training loader: packed records, chosen images, and what a batch is."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from zss_d2.data.pipeline import train_images
from zss_d2.data.pipeline.loader import build_train_loader, images_digest, training_records
from zss_d2.data.pipeline.train_images import classes_of, require_labels, without_unseen
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError

UNSEEN = 3


@pytest.fixture
def yard(tmp_path, monkeypatch) -> list[dict]:
    """Records of four images, of which yard_0 and yard_2 show nothing unseen."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    path = toy_custom.generate(tmp_path / "yard")
    for name in ("yard_0", "yard_2"):
        mask = path.parent / "masks" / f"{name}.png"
        labels = np.array(Image.open(mask))
        labels[labels == UNSEEN] = 0
        Image.fromarray(labels).save(mask)
    register_custom([path])
    return DatasetCatalog.get("zss_yard_train")


@pytest.fixture
def cfg(make_cfg, yard):
    return make_cfg(
        *("DATASETS.TRAIN", ("zss_yard_train",), "SOLVER.IMS_PER_BATCH", 2),
        *("DATALOADER.NUM_WORKERS", 0),
    )


def test_only_images_without_unseen_pixels(yard, cfg):
    assert [r["image_id"] for r in without_unseen(yard)] == ["yard_0", "yard_2"]
    assert len(training_records(cfg)) == 4
    cfg.ZERO_SHOT.TRAIN_IMAGES = "without_unseen"
    batches = itertools.islice(build_train_loader(cfg), 6)
    assert {item["image_id"] for batch in batches for item in batch} == {"yard_0", "yard_2"}
    # Pseudo labels are not to know from the choice of images where nothing unseen is.
    cfg.ZERO_SHOT.SETTING = "transductive"
    assert len(training_records(cfg)) == 4


def test_what_masks_show_is_remembered_until_they_change(yard, tmp_path, monkeypatch):
    cache = tmp_path / "classes.json"
    expected = {
        record["image_id"]: np.unique(np.asarray(Image.open(record["sem_seg_file_name"]))).tolist()
        for record in yard
    }
    assert classes_of(yard, cache, workers=2) == expected
    changed = Path(yard[1]["sem_seg_file_name"])
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(changed)
    os.utime(changed, (1, 1))
    read = []
    original = train_images.read_mask
    monkeypatch.setattr(train_images, "read_mask", lambda p: read.append(p) or original(p))
    assert classes_of(yard, cache) == expected | {"yard_1": [0]}
    assert read == [changed]
    cache.write_text("broken")
    assert classes_of(yard, cache)["yard_1"] == [0]
    assert set(json.loads(cache.read_text())) == set(expected)


def test_a_folder_that_cannot_be_written_costs_only_the_memory(yard, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(classes_of(yard, blocked / "classes.json")) == 4


def test_nothing_left_and_a_lost_mask_are_errors(yard):
    shown = [record for record in yard if record["image_id"] in ("yard_1", "yard_3")]
    with pytest.raises(ZssError, match="zss_yard_train: every image shows an unseen class"):
        without_unseen(shown)
    Path(yard[0]["sem_seg_file_name"]).unlink()
    with pytest.raises(ZssError, match=r"yard_0\.png: the mask is missing"):
        without_unseen(yard)


def test_batches_are_repeatable_and_of_the_asked_size(cfg):
    cfg.SEED = 7
    orders = [
        [
            item["image_id"]
            for batch in itertools.islice(build_train_loader(cfg), 4)
            for item in batch
        ]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
    assert len(orders[0]) == 8
    assert build_train_loader(cfg).images == images_digest(training_records(cfg))
    (batch,) = itertools.islice(build_train_loader(cfg), 1)
    assert {"image", "sem_seg", "file_name", "height", "width"} <= batch[0].keys()


def test_another_sampler_is_refused(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    with pytest.raises(ZssError, match="use 'TrainingSampler'"):
        build_train_loader(cfg)


def fill(yard: list[dict], value: int, *names: str) -> None:
    for record in yard:
        if record["image_id"] in names:
            Image.fromarray(np.full((96, 96), value, np.uint8)).save(record["sem_seg_file_name"])


def test_a_training_set_without_a_usable_label_is_refused(yard, cfg):
    names = [record["image_id"] for record in yard]
    fill(yard, 255, *names[:3])
    assert len(training_records(cfg)) == 4
    expected = "zss_yard_train: no pixel of its 4 training images has the label of a class"
    for value in (255, UNSEEN):
        fill(yard, value, *names)
        with pytest.raises(ZssError, match=expected):
            build_train_loader(cfg)
    cfg.ZERO_SHOT.SETTING = "supervised"
    assert len(training_records(cfg)) == 4


def test_images_without_unseen_pixels_must_have_a_usable_label(yard, cfg):
    fill(yard, 255, "yard_0", "yard_2")
    assert len(training_records(cfg)) == 4
    cfg.ZERO_SHOT.TRAIN_IMAGES = "without_unseen"
    with pytest.raises(ZssError, match="no pixel of its 2 training images has the label"):
        training_records(cfg)


def test_masks_are_read_up_to_the_first_label_only(yard, monkeypatch):
    read = []
    original = train_images.read_labels
    monkeypatch.setattr(
        train_images, "read_labels", lambda path, data: read.append(path) or original(path, data)
    )
    require_labels(yard)
    assert read == [yard[0]["sem_seg_file_name"]]


def test_unseen_classes_are_found_in_masks_with_raw_ids(tmp_path, monkeypatch, cfg):
    """What masks hold is remembered as they hold it, so that another split reads none again."""
    path = toy_custom.generate(tmp_path / "raw")
    mapping = "raw_to_train: {0: ground, 1: disc, 2: square, 3: stripe}"
    path.write_text(f"{mapping}\n{path.read_text()}".replace("name: yard", "name: raw"))
    register_custom([path])
    for record in DatasetCatalog.get("zss_raw_train"):
        labels = np.asarray(Image.open(record["sem_seg_file_name"]))
        values = np.array([40, 30, 20, 10], np.uint8)[labels]
        values[values == 10] = 40 if record["image_id"] in ("yard_0", "yard_2") else 10
        Image.fromarray(values).save(record["sem_seg_file_name"])
    text = path.read_text().replace(mapping, "raw_to_train: {40: 0, 30: 1, 20: 2, 10: 3}")
    path.write_text(text)
    register_custom([path])
    cfg.DATASETS.TRAIN, cfg.ZERO_SHOT.TRAIN_IMAGES = ("zss_raw_train",), "without_unseen"
    assert [r["image_id"] for r in training_records(cfg)] == ["yard_0", "yard_2"]
    path.write_text(text.replace("unseen: [stripe]", "unseen: [disc]"))
    register_custom([path])
    read = []
    monkeypatch.setattr(train_images, "read_mask", read.append)
    with pytest.raises(ZssError, match="every image shows an unseen class"):
        training_records(cfg)
    assert not read


@pytest.mark.parametrize(("device", "wanted"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_tensors_are_pinned_for_a_gpu(yard, cfg, device, wanted):
    cfg.MODEL.DEVICE = device
    assert build_train_loader(cfg).batches.pin_memory == wanted
    assert ZeroShotTrainer.build_test_loader(cfg, "zss_yard_val").loader.pin_memory == wanted
