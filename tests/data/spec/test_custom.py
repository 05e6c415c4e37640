"""Custom datasets: the description, its mistakes, and training on six images."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from zss_d2.data.files.encoding import read_labels
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words


def rewrite(path: Path, **changes: object) -> Path:
    data = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
    return path


def error(path: Path) -> str:
    with pytest.raises(ZssError) as caught:
        register_custom([path])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_splits_are_registered_with_their_lists(yard):
    register_custom([yard])
    records = DatasetCatalog.get("zss_yard_train")
    assert [record["image_id"] for record in records] == [f"yard_{i}" for i in range(4)]
    assert [r["image_id"] for r in DatasetCatalog.get("zss_yard_val")] == ["yard_4", "yard_5"]
    metadata = MetadataCatalog.get("zss_yard_val")
    assert metadata.stuff_classes == ["ground", "disc", "square", "stripe"]
    assert metadata.unseen_classes == ["stripe"]
    assert metadata.ignore_label == 255
    assert Path(records[0]["file_name"]).parent == yard.parent / "photos"


def test_without_lists_a_split_is_all_of_its_folder(yard):
    folders = {"images": "photos", "masks": "masks"}
    register_custom([rewrite(yard, splits={"all": folders}, name="whole")])
    assert len(DatasetCatalog.get("zss_whole_all")) == 6


def test_files_may_lie_in_folders_inside_and_have_endings(yard):
    root = yard.parent
    for index in range(6):
        for kind, ending in (("photos", "Photo.PNG"), ("masks", "ids.png")):
            folder = root / kind / f"day{index % 2}"
            folder.mkdir(exist_ok=True)
            (root / kind / f"yard_{index}.png").rename(folder / f"yard_{index}_{ending}")
    (root / "masks/day1/yard_3_colour.png").write_bytes(b"another file of the release")
    endings = {"image_ending": "_photo.png", "mask_ending": "_ids.png", "subfolders": True}
    split = {"images": "photos", "masks": "masks"} | endings
    register_custom([rewrite(yard, splits={"all": split}, name="days")])
    records = DatasetCatalog.get("zss_days_all")
    assert [record["image_id"] for record in records] == [f"yard_{i}" for i in range(6)]
    assert records[3]["sem_seg_file_name"] == str(root / "masks/day1/yard_3_ids.png")
    (root / "masks/day1/yard_3_ids.png").rename(root / "masks/day0/yard_4_ids.PNG")
    with pytest.raises(ZssError, match=r"yard_4_ids.* have the same id 'yard_4'"):
        DatasetCatalog.get("zss_days_all")


def test_unseen_may_be_empty_and_facts_may_be_left_out(yard):
    custom = load_custom(rewrite(yard, unseen=[], ignore_label=None))
    assert custom.benchmark.unseen_names == ()
    assert custom.benchmark.ignore_label == 255
    yard.write_text(yard.read_text().replace("unseen: []", "unseen:"))
    assert load_custom(yard).benchmark.unseen_names == ()


def test_colours_of_classes_are_those_of_pictures_and_of_words(yard):
    given = {"stripe": [1, 2, 250], "disc": [9, 200, 9]}
    register_custom([rewrite(yard, name="painted", colors=given)])
    shown = MetadataCatalog.get("zss_painted_val").stuff_colors
    assert [shown[1], shown[3]] == [[9, 200, 9], [1, 2, 250]]
    assert len(np.unique(shown, axis=0)) == 4
    assert label_colours(Words.of(["cat", "stripe"]))[1].tolist() == [1, 2, 250]
    view = yard.parent / "view.yaml"
    view.write_text("name: painted_view\nbase: yard.yaml\nhold_out: [disc]\n")
    register_custom([view])
    # The unseen stripe is void there.
    assert MetadataCatalog.get("zss_painted_view_val").stuff_colors[1] == [9, 200, 9]
    # An edited file counts.
    register_custom([rewrite(yard, colors=None)])
    assert not hasattr(MetadataCatalog.get("zss_painted_val"), "stuff_colors")
    assert label_colours(Words.of(["cat", "stripe"]))[1].tolist() != [1, 2, 250]


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ({"disk": [1, 2, 3]}, r"key 'colors': unknown class 'disk' \(did you mean 'disc'"),
        ({"disc": [1, 2]}, "key 'colors.disc'"),
        ({"disc": [1, 2, 256]}, r"key 'colors.disc.2': is 256; it should be less than or equal"),
        ({"disc": "red"}, "key 'colors.disc': is 'red'; write a list"),
    ],
)
def test_a_wrong_colour_is_named(yard, colors, message):
    assert re.search(message, error(rewrite(yard, colors=colors)))


def test_masks_with_raw_ids_are_translated_as_they_are_read(yard, tmp_path):
    for path in (yard.parent / "masks").iterdir():
        labels = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray(np.where(labels == 3, 0, labels * 100 + 100).astype(np.uint16)).save(path)
    mapping = {0: "stripe", 100: "ground", 200: "disc", 300: 2, 400: 255}
    register_custom([rewrite(yard, name="raw", raw_to_train=mapping)])
    (record, *others) = DatasetCatalog.get("zss_raw_train")
    assert len(others) == 3
    original = np.asarray(Image.open(record["sem_seg_file_name"]))
    expected = np.select([original == raw for raw in (0, 100, 200, 300)], [3, 0, 1, 2])
    labels = read_labels(record["sem_seg_file_name"], MetadataCatalog.get("zss_raw_train"))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected)
    mapped = ZeroShotMapper(is_train=True, augmentations=[], hide_unseen_labels=False)(record)
    assert np.array_equal(mapped["sem_seg"].numpy(), expected)
    hidden = ZeroShotMapper(is_train=True, augmentations=[])(record)
    assert np.array_equal(hidden["sem_seg"].numpy(), np.where(expected == 3, 255, expected))
    assert Path(record["sem_seg_file_name"]).parent == yard.parent / "masks"
    assert not (tmp_path / "datasets").exists()


def test_an_edited_map_is_in_force_at_once(yard):
    for train_ids in ([0, 1, 2, 3], [0, 1, 3, 2]):
        mapping = dict(enumerate(train_ids))
        register_custom([rewrite(yard, name="edited", raw_to_train=mapping)])
        for record in DatasetCatalog.get("zss_edited_train"):
            original = np.asarray(Image.open(record["sem_seg_file_name"]))
            labels = read_labels(record["sem_seg_file_name"], MetadataCatalog.get("zss_edited_val"))
            assert np.array_equal(labels, np.array(train_ids)[original])


def test_a_raw_value_outside_the_map_is_named_with_its_file(yard):
    mapping = {0: 0, 1: 1, 2: 2, 9: "stripe"}
    register_custom([rewrite(yard, name="holes", raw_to_train=mapping)])
    (record, *_) = DatasetCatalog.get("zss_holes_train")
    problem = r"yard_0\.png: value 3 \(\d+ pixels\) without a train id; correct the mask, or say in"
    with pytest.raises(ZssError, match=problem):
        ZeroShotMapper(is_train=True, augmentations=[])(record)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("disc, square", "disc, disc", "key 'classes': 'disc' is listed 2 times"),
        (
            "disc, square",
            "disc, ' Disc '",
            "'disc' and ' Disc ' differ in blanks or capitals alone",
        ),
        ("[stripe]", "[strip]", "key 'unseen': unknown class 'strip' (did you mean"),
        ("unseen:", "unsen:", "key 'top level': unknown key 'unsen'"),
        ("name: yard", "name: my yard", "key 'name': 'my yard' may hold only"),
        ("name: yard", "name: voc", "key 'name': 'voc' is a benchmark of the package"),
        ("ignore_label: 255", "ignore_label: 2", "key 'ignore_label': 2 is the id of"),
        ("ignore_label: 255", "name: twice", "line 4: invalid yaml (key 'name' is given twice)"),
        ("[stripe]", "[stripe", "invalid yaml"),
        ("images: photos", "images: fotos", "fotos: no such folder; correct splits.train"),
        ("masks: masks", "masks: train.txt", "train.txt: this is a file, a folder is needed"),
        ("list: train.txt", "list: tran.txt", "tran.txt: no such list; lists in that folder: tr"),
        ("images: photos, ", "", "key 'splits.train': the key 'images' is missing"),
        ("splits:", "raw_to_train: {0: 0, 1: 1}\nsplits:", "no raw value maps to 2 ('square')"),
        ("splits:", "raw_to_train: {0: 0, x: 1}\nsplits:", "key 'raw_to_train.x': raw value 'x'"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_remedy(yard, old, new, expected):
    text = yard.read_text()
    assert old in text
    yard.write_text(text.replace(old, new, 1))
    message = error(yard)
    assert expected in message
    assert str(yard.parent) in message


def test_a_missing_description_and_one_that_is_a_list(yard):
    assert "absent.yaml: cannot read" in error(yard.with_name("absent.yaml"))
    yard.write_text("- a\n- b\n")
    assert "holds ['a', 'b']; write lines of KEY: VALUE" in error(yard)


def test_an_image_of_the_list_without_mask_is_named(yard):
    (yard.parent / "masks" / "yard_1.png").unlink()
    register_custom([yard])
    with pytest.raises(ZssError, match=r"masks: no mask for 1 \(yard_1\); correct splits\.train"):
        DatasetCatalog.get("zss_yard_train")


def test_six_images_are_trained_and_scored(yard, make_cfg, tmp_path):
    register_custom([yard])
    cfg = make_cfg(
        *("DATASETS.CUSTOM", (str(yard),)),
        *("DATASETS.TRAIN", ("zss_yard_train",), "DATASETS.TEST", ("zss_yard_val",)),
        *("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0),
    )
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = ZeroShotTrainer(cfg)
    trainer.train()
    metrics = json.loads((tmp_path / "output" / "results.json").read_text())["zss_yard_val"]
    assert {"mIoU", "mIoU-S", "mIoU-U", "hIoU", "IoU-stripe"} <= metrics.keys()
    assert not math.isnan(metrics["mIoU-U"])


def test_the_generator_repeats_itself_and_spares_other_files(yard, tmp_path, capsys):
    before = {path: path.read_bytes() for path in yard.parent.rglob("*") if path.is_file()}
    assert toy_custom.main([str(yard.parent)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert toy_custom.main([str(tmp_path / "full")]) == 2
    assert "thesis.txt" in capsys.readouterr().err


def test_paths_may_hold_variables(yard, monkeypatch):
    monkeypatch.setenv("YARD", str(yard.parent))
    data = yaml.safe_load(yard.read_text())
    for split in data["splits"].values():
        split["images"] = f"$YARD/{split['images']}"
    register_custom([rewrite(yard, splits=data["splits"])])
    assert len(DatasetCatalog.get("zss_yard_train")) == 4
    monkeypatch.delenv("YARD")
    assert "$YARD" in error(yard)
