"""The preparation of VOC: what is written, what is kept, and what each bad file says."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zss_d2.data.labels import remap
from zss_d2.data.prepare.verify import check_split
from zss_d2.data.spec.benchmark import ids_digest, load_benchmark
from zss_d2.data.synthetic import toy_voc


def _errors(stream: str) -> list[str]:
    return [line for line in stream.splitlines() if line.startswith("error: ")]


def _mask(datasets: Path, name: str) -> Path:
    return datasets / "VOC2012" / "SegmentationClassAug" / f"{name}.png"


def _photo(datasets: Path, name: str) -> Path:
    return datasets / "VOC2012" / "JPEGImages" / f"{name}.jpg"


def _prepared(datasets: Path, split: str = "train") -> dict[str, int]:
    folder = datasets / "zss" / "voc" / "annotations" / split
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def test_masks_get_train_ids_and_images_become_links(prepare, datasets):
    status, out, _ = prepare()
    assert status == 0
    assert "train: 10 prepared, 0 were up to date, 0 problem(s)" in out
    assert "the list names 10 images, the benchmark has 10582" in out
    lut = load_benchmark("voc").lut
    for name in _prepared(datasets):
        labels = np.asarray(Image.open(datasets / f"zss/voc/annotations/train/{name}.png"))
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, remap(np.asarray(Image.open(_mask(datasets, name))), lut))
        image = datasets / f"zss/voc/images/train/{name}.jpg"
        assert image.is_symlink()
        assert image.samefile(_photo(datasets, name))


def test_background_is_a_class_if_wanted(prepare, datasets):
    """In a folder of its own, beside the other one."""
    assert (prepare()[0], prepare("--benchmark", "voc21")[0]) == (0, 0)
    name = min(_prepared(datasets))
    raw = np.asarray(Image.open(_mask(datasets, name)))
    for benchmark, shift in (("voc", -1), ("voc21", 0)):
        file = datasets / f"zss/{benchmark}/annotations/train/{name}.png"
        labels, inside = np.asarray(Image.open(file)), (raw > 0) & (raw < 255)
        assert np.array_equal(labels[inside], raw[inside] + np.int64(shift))
        assert set(labels[raw == 0].tolist()) == {0 if benchmark == "voc21" else 255}
        assert set(labels[raw == 255].tolist()) <= {255}


def test_copies_are_independent_of_the_originals(prepare, datasets):
    prepare()
    status, out, _ = prepare("--copy")
    assert (status, "train: 10 prepared" in out) == (0, True)
    image = datasets / "zss/voc/images/train/toy_train_aug_0000.jpg"
    assert not image.is_symlink()
    assert image.read_bytes() == _photo(datasets, "toy_train_aug_0000").read_bytes()


def test_worker_processes_write_the_same_files(prepare, datasets):
    prepare()
    folder = datasets / "zss/voc/annotations/train"
    alone = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(datasets / "zss")
    status, _, _ = prepare("--workers", "2")
    assert status == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == alone


def test_a_second_run_keeps_what_is_current_and_redoes_the_rest(prepare, datasets):
    prepare()
    before = _prepared(datasets)
    lost, newer, cut = (f"toy_train_aug_000{i}" for i in range(3))
    (datasets / f"zss/voc/annotations/train/{lost}.png").unlink()
    later = _mask(datasets, newer).stat().st_mtime + 1000
    os.utime(_mask(datasets, newer), (later, later))
    (datasets / f"zss/voc/annotations/train/{cut}.png").write_bytes(b"")
    status, out, _ = prepare()
    assert status == 0
    assert "train: 3 prepared, 7 were up to date" in out
    after = _prepared(datasets)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {lost, newer, cut}


def test_no_temporary_file_stays_behind(prepare, datasets):
    prepare()
    assert [path for path in (datasets / "zss").rglob("*") if path.suffix == ".tmp"] == []


def test_every_bad_file_is_named_with_its_reason_and_the_rest_is_prepared(prepare, datasets):
    names = [f"toy_train_aug_{i:04d}" for i in range(6)]
    raw = np.array(Image.open(_mask(datasets, names[0])))
    raw[:2, :5] = 77
    Image.fromarray(raw).save(_mask(datasets, names[0]))
    _photo(datasets, names[1]).write_bytes(_photo(datasets, names[1]).read_bytes()[:600])
    Image.new("L", (9, 9)).save(_mask(datasets, names[2]))
    _photo(datasets, names[3]).unlink()
    _mask(datasets, names[4]).unlink()
    Image.new("RGB", (160, 120)).save(_mask(datasets, names[5]))

    status, out, err = prepare()
    assert status == 2
    expected = {
        "missing": [f"1 ({names[3]}.jpg)", f"1 ({names[4]}.png)", "--skip-missing"],
        str(_mask(datasets, names[0])): ["value 77 (10 pixels)"],
        str(_photo(datasets, names[1])): ["unreadable image"],
        str(_mask(datasets, names[2])): ["9x9", str(_photo(datasets, names[2]))],
        str(_mask(datasets, names[5])): ["one channel"],
    }
    lines = _errors(err)
    assert len(lines) == len(expected)
    for (subject, parts), line in zip(expected.items(), lines, strict=True):
        assert all(part in line for part in (subject, *parts)), line
    assert "5 problem(s) in all" in err
    assert _prepared(datasets).keys() == {f"toy_train_aug_{i:04d}" for i in range(6, 10)}
    assert "val: 5 prepared" in out


def test_fixing_the_bad_file_lets_a_second_run_finish(prepare, datasets):
    mask = _mask(datasets, "toy_val_0001")
    good = mask.read_bytes()
    mask.write_bytes(b"not a picture")
    assert prepare()[0] == 2
    mask.write_bytes(good)
    status, out, _ = prepare()
    assert (status, "val: 1 prepared, 4 were up to date" in out) == (0, True)


def test_skip_missing_goes_on_with_what_is_there(prepare, datasets):
    for index in range(7):
        _photo(datasets, f"toy_train_aug_{index:04d}").unlink()
    status, _, err = prepare()
    assert status == 2
    (line,) = _errors(err)
    assert "of 10 listed, images missing in" in line
    assert "7 (toy_train_aug_0000.jpg" in line
    status, out, err = prepare("--skip-missing")
    assert (status, _errors(err)) == (0, [])
    assert "skipped" in out
    assert len(_prepared(datasets)) == 3


def test_leftovers_of_a_longer_list_are_pointed_out(prepare, datasets):
    prepare()
    lists = datasets / "VOC2012/ImageSets/Segmentation"
    (lists / "few.txt").write_text("toy_train_aug_0000\ntoy_train_aug_0001\n\n")
    status, out, _ = prepare("--train-list", "few")
    assert status == 0
    assert "also holds 8 (toy_train_aug_0002, " in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb c\n", "line 2: 'b c' is not an image id"),
        ("/JPEGImages/a.jpg\n", "line 1: '/JPEGImages/a.jpg' is not an image id"),
        ("a\nb\na\n", "line 3: 'a' is also on line 1"),
        ("\n", "the list is empty"),
    ],
)
def test_a_bad_list_is_named_with_the_line(prepare, datasets, text, expected):
    path = datasets / "VOC2012/ImageSets/Segmentation/mine.txt"
    path.write_text(text)
    status, _, err = prepare("--val-list", "mine")
    assert status == 2
    assert _errors(err) == [line for line in err.splitlines() if line]
    assert f"{path}: {expected}" in err


def test_an_unknown_list_or_root_is_one_line(prepare, datasets):
    status, _, err = prepare("--train-list", "trian")
    assert status == 2
    assert "trian.txt: no such list; lists in that folder: train_aug, val" in err
    status, _, err = prepare("--voc-root", str(datasets / "nowhere"))
    assert status == 2
    assert str(datasets / "nowhere" / "JPEGImages") in err
    assert "DETECTRON2_DATASETS" in err


def test_check_verifies_without_writing(prepare, datasets):
    prepare()
    before = _prepared(datasets)
    status, out, _ = prepare("--check", "--skip-missing")
    assert (status, "train: 10 images checked, 0 problem(s)" in out) == (0, True)
    assert _prepared(datasets) == before


def test_check_shows_the_pixels_of_every_class(prepare, datasets):
    prepare()
    _, out, _ = prepare("--check", "--skip-missing", "--compare-originals")
    raw = [np.asarray(Image.open(_mask(datasets, f"toy_val_{i:04d}"))) for i in range(5)]
    counts = np.bincount(np.concatenate([mask.ravel() for mask in raw]), minlength=256)
    rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    val = rows[next(i for i, row in enumerate(rows) if row[0].startswith("train: 10")) :]
    pixels = {row[2]: int(row[5]) for row in val if len(row) == 8 and row[5].isdigit()}
    voc = load_benchmark("voc")
    expected = {name: counts[i + 1] for i, name in enumerate(voc.classes) if counts[i + 1]}
    assert pixels == expected | {"(ignored)": counts[0] + counts[255]}


def test_check_compares_the_pixels_with_the_originals(prepare, datasets):
    prepare()
    path = datasets / "zss/voc/annotations/val/toy_val_0002.png"
    labels = np.array(Image.open(path))
    labels[0, 0] = 7
    Image.fromarray(labels).save(path)
    assert prepare("--check", "--skip-missing")[0] == 0
    status, _, err = prepare("--check", "--skip-missing", "--compare-originals")
    assert status == 2
    (line,) = _errors(err)
    assert f"{path}: the pixels per class differ" in line


def test_check_compares_the_ids_with_the_list(prepare, datasets):
    prepare()
    lists = datasets / "VOC2012/ImageSets/Segmentation"
    (lists / "few.txt").write_text("toy_val_0000\ntoy_val_0009\n")
    status, out, _ = prepare("--check", "--val-list", "few")
    assert prepare("--check", "--val-list", "few.txt")[:2] == (status, out)
    assert "nope.txt: no such list" in prepare("--check", "--val-list", "nope")[2]
    assert status == 0
    assert "val: 4 (toy_val_0001, toy_val_0002, toy_val_0003, toy_val_0004) are not on" in out
    assert "val: 1 (toy_val_0009) of the list are not prepared" in out
    shutil.rmtree(lists)
    status, out, _ = prepare("--check", "--skip-missing")
    assert (status, "note: list membership is not checked: " in out) == (0, True)


def test_another_id_list_of_the_right_length_is_a_problem(prepare, datasets, monkeypatch):
    prepare()
    voc = load_benchmark("voc")
    published = dataclasses.replace(voc.splits["val"], expected_images=5)
    train = dataclasses.replace(voc.splits["train"], expected_images=10, ids_sha256="")
    ours = [f"toy_val_{i:04d}" for i in range(5)]
    for digest, problems in ((published.ids_sha256, 1), (ids_digest(ours), 0)):
        val = dataclasses.replace(published, ids_sha256=digest)
        outcome = check_split(
            dataclasses.replace(voc, splits={"train": train, "val": val}),
            val,
            datasets / "zss/voc",
        )
        assert len(outcome.problems) == problems
        assert all("not those of the published list" in line for line in outcome.problems)


def test_a_dry_run_counts_and_writes_nothing(prepare, datasets):
    status, out, _ = prepare("--dry-run")
    assert (status, "train: dry run: would prepare 10 in" in out) == (0, True)
    assert not (datasets / "zss").exists()
    prepare()
    assert "would prepare 0 in" in prepare("--dry-run")[1]
    _mask(datasets, "toy_train_aug_0001").unlink()
    assert "masks missing in" in prepare("--dry-run")[2]


def test_check_compares_the_count_with_the_benchmark(prepare):
    prepare()
    status, _, err = prepare("--check")
    assert status == 2
    assert "holds 5 images, the benchmark has 1449" in err


def test_check_names_every_bad_file(prepare, datasets):
    prepare("--copy")
    root = datasets / "zss" / "voc"
    bad_value = root / "annotations/train/toy_train_aug_0000.png"
    labels = np.array(Image.open(bad_value))
    labels[0, :4] = 20
    Image.fromarray(labels).save(bad_value)
    cut = root / "images/train/toy_train_aug_0001.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (root / "annotations/val/toy_val_0000.png").unlink()
    status, _, err = prepare("--check", "--skip-missing")
    assert status == 2
    value_line, image_line, pair_line = _errors(err)
    assert f"{bad_value}: value 20 (4 pixels) outside 0..19" in value_line
    assert f"{cut}: unreadable image" in image_line
    assert "no mask for 1 (toy_val_0000)" in pair_line


def test_check_without_a_prepared_tree_fails(prepare):
    status, _, err = prepare("--check")
    assert status == 2
    assert "no such folder" in err


def test_toy_scenes_are_repeatable_and_hold_all_classes(tmp_path):
    assert toy_voc.main([str(tmp_path / "a"), "--train", "15", "--val", "1", "--seed", "3"]) == 0
    toy_voc.generate(tmp_path / "b", 15, 1, seed=3)
    masks = sorted((tmp_path / "a" / "SegmentationClassAug").iterdir())
    values = {value for path in masks for value in np.unique(np.asarray(Image.open(path)))}
    assert values == {*range(21), 255}
    assert all(Image.open(path).mode == "P" for path in masks)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 16 + 16 + 2
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_toy_scenes_are_never_written_over_real_photos(tmp_path, capsys):
    real = tmp_path / "JPEGImages" / "2007_000032.jpg"
    real.parent.mkdir()
    real.write_bytes(b"precious")
    assert toy_voc.main([str(tmp_path)]) == 2
    assert "2007_000032.jpg" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [real]


def test_the_palette_gives_the_first_classes_their_known_colours():
    palette = np.reshape(toy_voc.voc_palette(), (256, 3))
    assert palette[[0, 1, 15, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [192, 128, 128],
        [224, 224, 192],
    ]
