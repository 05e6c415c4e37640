"""``zss check``: every corruption gets its message before training starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from zss_d2.data.prepare import check
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.toy_voc import voc_palette


@pytest.fixture
def run(run_check):
    return run_check


def mask_of(yard: Path, name: str = "yard_1") -> Path:
    return yard.parent / "masks" / f"{name}.png"


def damage(yard: Path, kind: str) -> None:
    path = mask_of(yard)
    labels = np.array(Image.open(path))
    if kind == "wrong size":
        Image.fromarray(labels[:50]).save(path)
    elif kind == "value out of range":
        labels[0, :7] = 4
        Image.fromarray(labels).save(path)
    elif kind == "16 bit":
        labels = labels.astype(np.uint16)
        labels[0, :2] = 300
        Image.fromarray(labels).save(path)
    elif kind == "colours":
        Image.fromarray(np.stack([labels] * 3, axis=-1)).save(path)
    elif kind == "missing pair":
        path.unlink()
    elif kind == "duplicate id":
        (yard.parent / "train.txt").write_text("yard_0\nyard_1\nyard_0\n")
    elif kind == "two images with one id":
        (yard.parent / "photos" / "yard_1.jpg").write_bytes(b"")
    elif kind == "empty":
        for image in (yard.parent / "photos").iterdir():
            image.unlink()
    elif kind == "unreadable":
        path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("wrong size", "yard_1.png: the mask is 96x50 px but its image"),
        ("value out of range", "yard_1.png: value 4 (7 pixels) outside 0..3 and not the ignore"),
        ("16 bit", "yard_1.png: value 300 (2 pixels) outside 0..3"),
        ("colours", "yard_1.png: mask is stored as uint8 with shape (96, 96, 3); one channel"),
        ("missing pair", "masks: no mask for 1 (yard_1)"),
        ("duplicate id", "train.txt: line 3: 'yard_0' is also on line 1"),
        ("two images with one id", "have the same id 'yard_1'"),
        ("empty", "photos: the folder holds no image"),
        ("unreadable", "yard_1.png: unreadable mask"),
    ],
)
def test_each_corruption_gets_its_message(yard, run, kind, expected):
    damage(yard, kind)
    status, _, errors = run(yard)
    assert status == 2
    assert errors
    assert expected in errors[0]


def test_a_sound_data_set_is_described_and_nothing_is_written(yard, run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, out, errors = run(yard)
    assert (status, errors) == (0, [])
    assert "yard: 4 classes, 3 seen, 1 unseen (stripe), ignore label 255" in out
    assert "train: 4 images checked, 0 problem(s)" in out
    assert "everything is in order" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_palette_and_16_bit_masks_are_pointed_out(yard, run):
    palette = Image.open(mask_of(yard)).convert("L")
    palette.putpalette(voc_palette())
    palette.save(mask_of(yard))
    wide = np.asarray(Image.open(mask_of(yard, "yard_5"))).astype(np.uint16)
    Image.fromarray(wide).save(mask_of(yard, "yard_5"))
    status, out, _ = run(yard)
    assert status == 0
    assert (
        "note: train: 1 masks, such as yard_1, have a palette: the palette indices are the class"
        in out
    )
    assert "note: val: 1 masks, such as yard_5, hold 16 bits" in out


def test_raw_masks_are_checked_through_their_map(yard, run, tmp_path):
    text = yard.read_text()
    yard.write_text(text.replace("splits:", "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3}\nsplits:"))
    assert run(yard)[0] == 0
    assert not (tmp_path / "datasets").exists()
    yard.write_text(text.replace("splits:", "raw_to_train: {0: 0, 1: 1, 2: 2, 9: 3}\nsplits:"))
    status, _, errors = run(yard)
    assert status == 2
    assert "value 3 (" in errors[0]
    assert "without a train id; correct the mask, or say in" in errors[0]


def config(tmp_path: Path, train: str, test: str, **more: str) -> Path:
    path = tmp_path / "run.yaml"
    lines = [f"_BASE_: {ROOT / 'configs' / 'Base-ZeroShot.yaml'}", "DATASETS:"]
    lines += [f"  TRAIN: {train}", f"  TEST: {test}"]
    lines += [f"  {key}: {value}" for key, value in more.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_config_checks_what_it_trains_and_tests_on(datasets, yard, run, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    path = config(
        tmp_path, '("zss_voc_train",)', '("zss_voc_val", "zss_yard_val")', CUSTOM=f"[{yard}]"
    )
    status, out, errors = run(path)
    assert (status, errors) == (0, [])
    assert "inductive training on voc: labels and names of 15 of 20 classes" in out
    assert "zss_yard_val: cross-dataset, the model is given its 4 names; 4 (ground, disc, " in out
    assert "train: 10 images checked" in out
    assert "val: 2 images checked" in out


@pytest.mark.parametrize("name", ["ldvc_mini", "configs/ldvc_mini.yaml"])
def test_a_config_of_the_project_is_found_by_its_name(name, run, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    status, out, errors = run(name)
    assert status == 2
    assert "inductive training on mini: labels and names of 26 of 35 classes" in out
    assert "images/train: no such folder" in errors[0]


def test_unknown_data_sets_and_missing_data_end_with_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    path = config(tmp_path, '("zss_voc_trian",)', "()")
    status, _, errors = run(path)
    assert (status, len(errors)) == (2, 1)
    assert (
        "DATASETS.TRAIN: no data set 'zss_voc_trian' (did you mean 'zss_voc_train'?)" in errors[0]
    )
    status, _, errors = run(config(tmp_path, '("zss_voc_train",)', "()"))
    assert (status, "prepare_voc.py" in errors[0]) == (2, True)
    assert "DATASETS.TRAIN is empty" in run(config(tmp_path, "()", "()"))[2][0]
    assert "DATASETS has '(oops'; give a list" in run(config(tmp_path, "(oops", "()"))[2][0]
    assert "no such file" in run(tmp_path / "absent.yaml")[2][0]
    assert "did you mean 'voc'" in run("vocc")[2][0]


def test_a_test_set_whose_unseen_classes_are_trained_is_pointed_out():
    coco, voc = load_benchmark("coco_stuff"), load_benchmark("voc")
    targets = check.benchmark_targets(voc)[1:]
    notes = " ".join(check.vocabulary_notes(coco, "inductive", targets))
    assert "zss_voc_val: 2 (sheep, train) count as unseen there but are trained" in notes
    notes = " ".join(check.vocabulary_notes(voc, "supervised", targets))
    assert "5 (pottedplant, sheep, sofa, train, tvmonitor) count as unseen there" in notes
    assert check.vocabulary_notes(voc, "inductive", targets) == [
        "inductive training on voc: labels and names of 15 of 20 classes"
    ]


def test_a_benchmark_is_checked_by_name(datasets, run):
    status, out, errors = run("voc")
    assert (status, errors) == (0, [])
    assert "holds 10 images, the benchmark has 10582" in out
    assert "val: 5 images checked, 0 problem(s)" in out


def paint(yard: Path, images: range, value: int, where: int | None = None) -> None:
    """Give masks one value, everywhere or where they hold another."""
    for i in images:
        labels = np.array(Image.open(mask_of(yard, f"yard_{i}")))
        labels[labels == where if where is not None else ...] = value
        Image.fromarray(labels).save(mask_of(yard, f"yard_{i}"))


def test_a_set_without_one_labelled_pixel_is_a_problem(yard, run, tmp_path):
    paint(yard, range(4), 255)
    for subject in (yard, config(tmp_path, '("zss_yard_train",)', "()", CUSTOM=f"[{yard}]")):
        status, out, errors = run(subject)
        assert (status, len(errors)) == (2, 1)
        assert "train: no pixel of 4 images has a label, all are void (255)" in errors[0]
        assert "everything is in order" not in out
    paint(yard, range(4), 0)
    paint(yard, range(4, 6), 255)
    status, _, errors = run(yard)
    assert status == 2
    assert "val: no pixel of 2 images has a label" in errors[0]


def test_void_values_of_a_map_are_no_labels(yard, run):
    text = yard.read_text()
    paint(yard, range(4), 9)
    yard.write_text(
        text.replace("splits:", "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3, 9: 255}\nsplits:")
    )
    assert "train: no pixel of 4 images has a label" in run(yard)[2][0]


def test_a_training_set_that_labels_unseen_classes_only_is_a_problem(yard, run, tmp_path):
    paint(yard, range(4), 3)
    status, _, errors = run(yard)
    assert status == 2
    assert (
        "train: only unseen classes (stripe) are labelled, which training never sees" in errors[0]
    )
    path = config(tmp_path, '("zss_yard_train",)', "()", CUSTOM=f"[{yard}]")
    assert run(path)[0] == 2
    with path.open("a") as file:
        file.write("ZERO_SHOT: {SETTING: supervised}\n")
    assert run(path)[0] == 0


def test_images_and_seen_classes_that_training_lacks_are_pointed_out(yard, run):
    paint(yard, range(4), 0, where=2)
    paint(yard, range(1, 2), 255)
    paint(yard, range(2, 4), 3)
    status, out, errors = run(yard)
    assert (status, errors) == (0, [])
    assert "note: train: 1 (yard_1) have no labelled pixel" in out
    assert "note: train: 2 (yard_2, yard_3) show unseen classes only, so nothing of them is" in out
    assert "note: train: 1 (square) are to be trained but have no pixel" in out


def test_a_test_set_may_lack_classes(yard, run):
    paint(yard, range(4, 6), 3)
    status, out, errors = run(yard)
    assert (status, errors) == (0, [])
    assert "note: val" not in out


def test_photos_that_are_read_in_another_way_than_elsewhere_are_pointed_out(yard, run):
    photos = yard.parent / "photos"
    levels = np.linspace(0, 65535, 96 * 96).astype(np.uint16).reshape(96, 96)
    Image.fromarray(levels).save(photos / "yard_0.png")
    Image.fromarray(levels // 16).save(photos / "yard_1.png")
    Image.fromarray(np.full((96, 96, 4), 7, np.uint8)).save(photos / "yard_2.png")
    status, out, _ = run(yard)
    assert status == 0
    assert "note: train: 1 images, such as yard_0, are 16-bit grey: 0..65535 become 0..255" in out
    assert "note: train: 1 images, such as yard_1, are 16-bit and nearly black" in out
    assert "note: train: 1 images, such as yard_2, have transparency, which is dropped" in out
    Image.fromarray(levels.astype(np.float32)).save(photos / "yard_0.png", format="TIFF")
    status, _, errors = run(yard)
    assert status == 2
    assert "yard_0.png: image is stored in mode 'F'" in errors[0]


def test_an_original_is_never_to_be_deleted(yard, run):
    damage(yard, "value out of range")
    (line,) = run(yard)[2]
    assert f"correct the mask, or give raw_to_train in {yard}" in line
    assert "delete" not in line
