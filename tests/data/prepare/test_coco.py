"""COCO-Stuff: maps painted from annotations, and the preparation from maps or annotations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.data.conftest import load_script
from zss_d2.data.labels import remap
from zss_d2.data.prepare.coco import OTHER_ID, decode, json_pairs, order_layers, paint
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.errors import ZssError

WIDTH, HEIGHT = 40, 30
PERSON, DOG, GRASS, SKY = 1, 18, 124, 157


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    area = np.zeros((HEIGHT, WIDTH), bool)
    area[top:bottom, left:right] = True
    return area


def polygon(top: int, left: int, bottom: int, right: int) -> list:
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(area: np.ndarray) -> dict:
    """Uncompressed: lengths down the columns, starting with background."""
    flat = area.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [not flat[-1]]])))
    return {"size": list(area.shape), "counts": np.diff([0, *changes]).tolist()}


def compressed(area: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(area.astype(np.uint8)))
    return {"size": list(area.shape), "counts": encoded["counts"].decode()}


def annotation(image_id: int, category: int, segmentation: object, area: int, crowd=0) -> dict:
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": crowd,
    }


@pytest.fixture
def coco(tmp_path, monkeypatch) -> tuple[Path, np.ndarray]:
    """A COCO tree with annotation files for two images, and the raw map of the first."""
    root = tmp_path / "coco"
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in (7, 9)
    ]
    crowd, dog, person = box(0, 0, 10, 30), box(5, 5, 20, 25), box(8, 8, 12, 12)
    stuff = [
        annotation(7, GRASS, compressed(box(15, 0, 30, 40)), 600),
        annotation(7, SKY, compressed(box(0, 0, 15, 40)), 600),
        annotation(7, OTHER_ID, compressed(box(0, 30, 30, 40)), 300),
        annotation(9, SKY, compressed(box(0, 0, 10, 40)), 400),
    ]
    things = [
        annotation(7, PERSON, polygon(8, 8, 12, 12), 16),
        annotation(7, DOG, polygon(5, 5, 20, 25), 300),
        annotation(7, PERSON, run_lengths(crowd), 300, crowd=1),
    ]
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[15:], expected[:15] = GRASS - 1, SKY - 1
    expected[crowd], expected[dog], expected[person] = PERSON - 1, DOG - 1, PERSON - 1
    for folder in ("train2017", "val2017"):
        (root / folder).mkdir(parents=True)
        for image in images:
            Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(root / folder / image["file_name"])
        for kind, entries in (("stuff", stuff), ("instances", things)):
            path = root / "annotations" / f"{kind}_{folder}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"images": images, "annotations": entries}))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return root, expected


@pytest.fixture
def prepare(coco, capsys):
    """Run the command line; gives (exit status, output, error stream)."""
    script = load_script("prepare_coco_stuff")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = script.run(["--workers", "1", *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("encode", [run_lengths, compressed])
def test_run_lengths_decode_to_the_area(encode):
    area = box(3, 4, 9, 11) | box(20, 0, 30, 2)
    assert np.array_equal(decode(encode(area), HEIGHT, WIDTH), area)


def test_several_polygons_are_one_area():
    parts = polygon(2, 2, 6, 9) + polygon(10, 20, 20, 30)
    expected = box(2, 2, 6, 9) | box(10, 20, 20, 30)
    assert np.array_equal(decode(parts, HEIGHT, WIDTH), expected)


def test_nothing_painted_is_unlabelled():
    assert (paint(3, 4, ()) == 255).all()


def test_layers_are_stuff_then_crowds_then_things_by_falling_area():
    things = [
        {"category_id": 1, "segmentation": "small", "area": 5, "iscrowd": 0},
        {"category_id": 2, "segmentation": "large", "area": 50, "iscrowd": 0},
        {"category_id": 3, "segmentation": "crowd", "area": 500, "iscrowd": 1},
    ]
    stuff = [{"category_id": 92, "segmentation": "stuff", "area": 1}]
    order = [segmentation for _, segmentation in order_layers(stuff, things)]
    assert order == ["stuff", "crowd", "large", "small"]


def test_maps_from_annotations_equal_the_maps_painted_directly(coco):
    root, expected = coco
    annotations = root / "annotations"
    pairs = json_pairs(
        annotations / "stuff_train2017.json",
        annotations / "instances_train2017.json",
        root / "train2017",
    )
    first, second = pairs
    assert first.image == root / "train2017" / "000000000007.jpg"
    assert np.array_equal(first.read(first.mask), expected)
    only_sky = second.read(second.mask)
    assert (only_sky[:10] == SKY - 1).all()
    assert (only_sky[10:] == 255).all()


def test_preparing_from_annotations_and_from_maps_gives_the_same_files(coco, prepare, tmp_path):
    root, expected = coco
    status, out, err = prepare("--output", str(tmp_path / "a"), "--workers", "2")
    assert (status, "masks from the annotation files" in out) == (0, True), err
    for folder in ("train2017", "val2017"):
        maps = root / "stuffthingmaps" / folder
        maps.mkdir(parents=True)
        Image.fromarray(expected).save(maps / "000000000007.png")
        Image.fromarray(expected).save(maps / "000000000007_labelTrainIds.png")
        second = np.full((HEIGHT, WIDTH), 255, np.uint8)
        second[:10] = SKY - 1
        Image.fromarray(second).save(maps / "000000000009.png")
    status, out, _ = prepare("--output", str(tmp_path / "b"))
    assert (status, "masks from" in out) == (0, False)
    for split in ("train2017", "val2017"):
        files = sorted((tmp_path / "a" / "annotations" / split).iterdir())
        assert [path.name for path in files] == ["000000000007.png", "000000000009.png"]
        for path in files:
            twin = tmp_path / "b" / "annotations" / split / path.name
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(twin)))
    prepared = np.asarray(Image.open(tmp_path / "a/annotations/train2017/000000000007.png"))
    assert np.array_equal(prepared, remap(expected, load_benchmark("coco_stuff").lut))
    assert "train: 0 prepared, 2 were up to date" in prepare("--output", str(tmp_path / "b"))[1]
    for output in ("a", "b"):
        check = ("--check", "--compare-originals", "--skip-missing")
        status, out, err = prepare("--output", str(tmp_path / output), *check)
        assert status == 0, err
        assert "train: 2 images checked, 0 problem(s)" in out


def test_a_map_with_an_undefined_value_or_without_photo_is_named(coco, prepare):
    root, expected = coco
    for folder in ("train2017", "val2017"):
        maps = root / "stuffthingmaps" / folder
        maps.mkdir(parents=True)
        for name in ("000000000007", "000000000009", "000000000011"):
            Image.fromarray(np.where(expected == PERSON - 1, 11, expected).astype(np.uint8)).save(
                maps / f"{name}.png"
            )
    status, _, err = prepare()
    assert status == 2
    assert "000000000007.png: value 11 (" in err
    assert "images missing in" in err
    assert "1 (000000000011.jpg)" in err


@pytest.mark.parametrize("kind", ["stuff", "instances"])
def test_other_annotations_make_the_masks_anew(coco, prepare, kind):
    root, expected = coco
    prepare()
    assert "train: 0 prepared, 2 were up to date" in prepare()[1]
    path = root / "annotations" / f"{kind}_train2017.json"
    data = json.loads(path.read_text())
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] not in (SKY, DOG)]
    path.write_text(json.dumps(data))
    # As old as an archive may say.
    os.utime(path, (1e9, 1e9))
    assert "train: 2 prepared, 0 were up to date" in prepare()[1]
    prepared = np.asarray(
        Image.open(root.parent / "zss/coco_stuff/annotations/train2017/000000000007.png")
    )
    gone = SKY - 1 if kind == "stuff" else DOG - 1
    assert load_benchmark("coco_stuff").raw_to_train[gone] not in prepared


@pytest.mark.parametrize(
    "name", ["../000000000007.jpg", "/etc/passwd", "val/7.jpg", "..", "", "a\\b.jpg", None, 7]
)
def test_an_annotation_file_cannot_lead_out_of_its_folder(coco, prepare, name):
    path = coco[0] / "annotations" / "stuff_train2017.json"
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = name
    path.write_text(json.dumps(data))
    before = sorted(coco[0].parent.rglob("*"))
    status, _, err = prepare()
    assert status == 2
    assert f"{path}: image 7 has the file_name {name!r}, which is no name of a file" in err
    assert sorted(coco[0].parent.rglob("*")) == before


@pytest.mark.parametrize("key", ["height", "width"])
def test_an_image_without_its_size_is_named(coco, prepare, key):
    path = coco[0] / "annotations" / "stuff_train2017.json"
    data = json.loads(path.read_text())
    del data["images"][0][key]
    path.write_text(json.dumps(data))
    status, _, err = prepare()
    assert (status, f"000000000007.jpg lacks '{key}'" in err) == (2, True)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data.pop("annotations"), "no COCO annotation file"),
        (lambda data: data["images"].append({"id": 99}), "image 99 and 0 more are not in"),
        (lambda data: data["annotations"][0].update(category_id=400), "category 400"),
    ],
)
def test_annotation_files_that_do_not_fit_are_named(coco, prepare, damage, expected):
    path = coco[0] / "annotations" / "instances_train2017.json"
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    status, _, err = prepare("--masks", "json")
    assert (status, expected in err) == (2, True), err
    assert len(err.splitlines()) == 1


def test_a_missing_or_broken_annotation_file_is_one_line(coco, prepare):
    path = coco[0] / "annotations" / "stuff_train2017.json"
    path.write_text("{")
    assert f"{path}: is no JSON" in prepare()[2]
    path.unlink()
    assert f"{path}: cannot be read (No such file or directory)" in prepare()[2]


def test_a_segmentation_that_cannot_be_decoded_is_a_problem_of_its_image(coco):
    root, _ = coco
    path = root / "annotations" / "instances_train2017.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = {"counts": 5}
    path.write_text(json.dumps(data))
    stuff = root / "annotations" / "stuff_train2017.json"
    bad, _ = json_pairs(stuff, path, root / "train2017")
    with pytest.raises(ZssError, match=r"stuff_train2017\.json: a segmentation cannot be decoded"):
        bad.read(bad.mask)
