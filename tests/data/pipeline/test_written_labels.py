"""Folders that are no pseudo labels for a training are refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from zss_d2.data.files.predictions import holds_results, require_ground_truth
from zss_d2.data.pipeline.written_labels import WrittenLabels
from zss_d2.errors import ZssError

CLASSES = ("cat", "dog", "cow")
MANIFEST = {
    "kind": "zss predict",
    "state": "finished",
    "method": "LDVC",
    "words": {"classes": [["dog"], ["cat"]], "background": []},
}


@pytest.fixture
def write(tmp_path):
    """``write(**changes)``: a folder with this manifest and no image."""

    def make(**changes: object):
        (tmp_path / "predict.json").write_text(json.dumps(MANIFEST | changes))
        (tmp_path / "predict.jsonl").write_text("")
        return tmp_path

    return make


def read(folder) -> WrittenLabels:
    return WrittenLabels(folder, CLASSES, ("cow",), ignore=255)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "other"}, "damaged predict.json, or not one of zss predict"),
        ({"words": {"classes": []}}, "damaged predict.json"),
        ({"words": 3}, "damaged predict.json"),
        ({"state": "not finished"}, "is not finished: run its zss predict again"),
        (
            {"words": {"classes": [["dog"], ["zebra"]], "background": []}},
            "has labels of 'zebra', which is no class of the training",
        ),
        (
            {"trained": {"labelled_classes": ["dog", "cow"]}},
            r"was trained with labels of 1 unseen classes, such as 'cow'",
        ),
        ({"trained": {"leaky": True}}, "training looked at hidden labels"),
    ],
)
def test_a_folder_that_cannot_be_meant(write, changes, message):
    read(write())
    with pytest.raises(ZssError, match=message) as caught:
        read(write(**changes))
    assert "\n" not in str(caught.value)
    assert "SELF_TRAINING.FOLDER" in str(caught.value)


def test_a_folder_that_is_none(tmp_path, write):
    with pytest.raises(ZssError, match="has no predict.json, which zss predict writes"):
        read(tmp_path / "none")
    folder = write()
    for content in (None, "no json\n", "[1]\n"):
        (folder / "predict.jsonl").unlink() if content is None else (
            folder / "predict.jsonl"
        ).write_text(content)
        with pytest.raises(ZssError, match=r"no predict.jsonl that can be read"):
            read(folder)


def test_labels_of_another_image_of_the_same_name(write, tmp_path):
    """Such as of another split, whose images are numbered alike and as large."""
    for split, content in (("train", b"an image"), ("val", b"another image")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.png").write_bytes(content)
    folder = write()
    (folder / "labels").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "labels/0.png")
    record = {"file_name": "0.png", "files": {"labels": "labels/0.png"}}
    train = tmp_path / "train/0.png"
    for stamp in ([train.stat().st_size, 5], None):
        (folder / "predict.jsonl").write_text(json.dumps(record | {"stamp": stamp}))
        assert (read(folder).read(str(train), (8, 8)) == 1).all()
    (folder / "predict.jsonl").write_text(json.dumps(record | {"stamp": [train.stat().st_size, 5]}))
    with pytest.raises(ZssError, match="has labels of another image than .*val/0.png"):
        read(folder).read(str(tmp_path / "val/0.png"), (8, 8))


def test_what_a_model_has_labelled_is_no_ground_truth(write, tmp_path):
    masks = write() / "labels" / "train"
    masks.mkdir(parents=True)
    assert holds_results(tmp_path)
    for folder, said in ((masks, False), (tmp_path / "elsewhere", True)):
        with pytest.raises(ZssError, match="zss_a_val: .*compare a model with a model"):
            require_ground_truth("zss_a_val", [folder], said)
    (tmp_path / "predict.json").unlink()
    require_ground_truth("zss_a_val", [masks], False)
