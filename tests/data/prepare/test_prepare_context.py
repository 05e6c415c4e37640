"""PASCAL Context: three encodings of the masks, two conventions for background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.data.conftest import load_script
from zss_d2.data.spec.benchmark import load_benchmark

IDS = {"train": ("2008_000001", "2008_000004"), "val": ("2008_000002",)}
# Rows of one scene: nothing, an aeroplane, a bag, a person, cloth, a class outside the 59.
RAW459 = (0, 2, 9, 308 - 13, 72, 1)
NAMES = ("background", "aeroplane", "bag", "plate", "chair", "background")


@pytest.fixture
def voc2010(tmp_path, monkeypatch) -> Path:
    """VOC2010 with photos, lists and .mat masks."""
    root = tmp_path / "VOC2010"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    lists = root / "ImageSets" / "SegmentationContext"
    for folder in (root / "JPEGImages", root / "trainval", lists):
        folder.mkdir(parents=True)
    for split, ids in IDS.items():
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
        for image_id in ids:
            Image.new("RGB", (8, 6), (50, 60, 70)).save(root / "JPEGImages" / f"{image_id}.jpg")
            labels = np.repeat(np.array(RAW459, np.uint16)[:, None], 8, axis=1)
            scipy.io.savemat(root / "trainval" / f"{image_id}.mat", {"LabelMap": labels})
    return root


@pytest.fixture
def prepare(voc2010, capsys):
    script = load_script("prepare_context")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = script.run(["--workers", "1", *arguments])
        return status, *capsys.readouterr()

    return run


def rows(root: Path, benchmark: str, image_id: str = "2008_000001", split: str = "train") -> list:
    """Names of the classes down the first column of a prepared mask."""
    path = root.parent / "zss" / benchmark / "annotations" / split / f"{image_id}.png"
    classes = load_benchmark(benchmark).classes
    labels = np.asarray(Image.open(path))
    assert labels.dtype == np.uint8
    return ["ignored" if value == 255 else classes[value] for value in labels[:, 0]]


def to_png(root: Path, values: dict[str, int], names=NAMES) -> Path:
    folder = root / "png"
    folder.mkdir()
    column = np.array([values[name] for name in names], np.uint8)
    for image_id in (*IDS["train"], *IDS["val"]):
        Image.fromarray(np.repeat(column[:, None], 8, axis=1)).save(folder / f"{image_id}.png")
    return folder


def test_459_class_files_become_both_conventions(voc2010, prepare):
    status, out, err = prepare()
    assert status == 0, err
    assert "train: 2 prepared" in out
    expected = ["ignored" if name == "background" else name for name in NAMES]
    assert rows(voc2010, "context59") == expected
    assert prepare("--benchmark", "context60")[0] == 0
    assert rows(voc2010, "context60") == list(NAMES)
    assert rows(voc2010, "context60", "2008_000002", "val") == list(NAMES)


@pytest.mark.parametrize("encoding", ["png_alphabetical", "png_voc_first"])
def test_59_class_pngs_are_read_in_the_order_that_is_named(voc2010, prepare, encoding):
    alphabetical = ("background", *load_benchmark("context59").classes)
    order = {name: i for i, name in enumerate(alphabetical)}
    if encoding == "png_voc_first":
        order = {"background": 0, "aeroplane": 1, "bag": 21, "plate": 45, "chair": 9}
    masks = to_png(voc2010, order)
    arguments = ("--masks", str(masks), "--encoding", encoding)
    assert prepare("--benchmark", "context60", *arguments)[0] == 0
    assert rows(voc2010, "context60") == list(NAMES)
    status, out, err = prepare(
        "--benchmark", "context60", *arguments, "--check", "--compare-originals", "--skip-missing"
    )
    assert status == 0, err
    assert "aeroplane" in out


def test_another_order_makes_the_masks_anew(voc2010, prepare):
    """What the first, mistaken run has written is not up to date for the second."""
    order = {"background": 0, "aeroplane": 1, "bag": 21, "plate": 45, "chair": 9}
    masks = ("--masks", str(to_png(voc2010, order)))
    assert prepare("--benchmark", "context60", *masks, "--encoding", "png_alphabetical")[0] == 0
    assert rows(voc2010, "context60") != list(NAMES)
    status, out, _ = prepare("--benchmark", "context60", *masks, "--encoding", "png_voc_first")
    assert (status, "train: 2 prepared, 0 were up to date" in out) == (0, True)
    assert rows(voc2010, "context60") == list(NAMES)


def test_preparing_mat_files_again_changes_nothing(voc2010, prepare):
    prepare()
    folder = voc2010.parent / "zss"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "train: 0 prepared, 2 were up to date" in prepare()[1]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_png_masks_without_a_named_order_are_refused(voc2010, prepare):
    masks = to_png(voc2010, dict.fromkeys(NAMES, 1))
    status, _, err = prepare("--masks", str(masks))
    assert status == 2
    assert err.startswith(f"error: {masks}: holds .png masks, whose class order cannot be seen")
    assert "png_voc_first" in err


def test_the_wrong_order_shows_in_the_comparison_with_the_originals(voc2010, prepare):
    order = {"background": 0, "aeroplane": 1, "bag": 21, "plate": 45, "chair": 9}
    masks = ("--masks", str(to_png(voc2010, order)))
    assert prepare(*masks, "--encoding", "png_alphabetical")[0] == 0
    check = ("--check", "--compare-originals", "--skip-missing")
    status, _, err = prepare(*masks, "--encoding", "png_voc_first", *check)
    assert status == 2
    assert "the pixels per class differ from those of" in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"Other": np.zeros((6, 8), np.uint8)}, "no variable LabelMap"),
        ({"LabelMap": np.zeros((6, 8))}, "LabelMap is float64"),
        ({"LabelMap": np.full((6, 8), 460, np.uint16)}, "value 460 (48 pixels) without a meaning"),
        ({"LabelMap": np.zeros((2, 2), np.uint8)}, "the mask is 2x2 px but its image"),
        (b"no matlab", "unreadable mask"),
        (b"MATLAB 5.0 MAT-file" * 9, "unreadable mask"),
        ({"LabelMap": np.full((6, 8), -3, np.int16)}, "value -3 (48 pixels) without a meaning"),
    ],
)
def test_a_bad_mat_file_is_named(voc2010, prepare, content, expected):
    path = voc2010 / "trainval" / "2008_000002.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        scipy.io.savemat(path, content)
    status, out, err = prepare()
    assert (status, f"{path}: " in err, expected in err) == (2, True, True), err
    assert "train: 2 prepared" in out


def test_missing_lists_and_folders_are_one_line(voc2010, prepare):
    lists = voc2010 / "ImageSets" / "SegmentationContext"
    (lists / "val.txt").rename(lists / "validation.txt")
    assert "val.txt: no such list; lists in that folder: train, validation" in prepare()[2]
    status, _, err = prepare("--masks", str(voc2010 / "nowhere"))
    assert (status, "nowhere: no such folder; let --masks name" in err) == (2, True)
    status, _, err = prepare("--voc-root", str(lists / "train.txt"))
    assert status == 2


def test_a_list_of_ones_own(voc2010, prepare, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("2008_000004\n")
    status, out, _ = prepare("--train-list", str(mine), "--dry-run")
    assert (status, "train: dry run: would prepare 1 in" in out) == (0, True)
    assert not (tmp_path / "zss").exists()
