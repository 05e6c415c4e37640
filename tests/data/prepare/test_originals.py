"""ADE20K and Cityscapes are read where they lie; what is missing is said, with where to get it."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from tests.conftest import ROOT
from tests.data.conftest import load_script
from tests.data.released import make_ade20k, make_cityscapes
from zss_d2.config.defaults import default_config
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.prepare import originals
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.requirements import require_datasets

SCRIPTS = {"ade20k150": "prepare_ade20k", "cityscapes": "prepare_cityscapes"}
# Images of the toy trees: training, validation.
COUNTS = {"ade20k150": (3, 4), "cityscapes": (4, 4)}


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """Both below DETECTRON2_DATASETS."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return {"ade20k150": make_ade20k(tmp_path), "cityscapes": make_cityscapes(tmp_path)}


@pytest.fixture
def look(trees, capsys, monkeypatch):
    """``look(name, ...)``: the script's status, output and errors; the toy has the right size."""

    def small(name: str):
        benchmark = load_benchmark(name)
        counts = dict(zip(("train", "val"), COUNTS[name], strict=True))
        splits = {
            key: dataclasses.replace(split, expected_images=counts[key])
            for key, split in benchmark.splits.items()
        }
        return dataclasses.replace(benchmark, splits=splits)

    def run(name: str, *arguments: str, complete: bool = True) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(originals, "load_benchmark", small if complete else load_benchmark)
        capsys.readouterr()
        status = load_script(SCRIPTS[name]).run(["--workers", "1", *arguments])
        out, err = capsys.readouterr()
        return status, out, [line for line in err.splitlines() if line.startswith("error: ")]

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_complete_tree_is_ready_and_stays_as_it_is(look, trees, name, monkeypatch):
    before = sorted(trees[name].rglob("*"))
    monkeypatch.setattr(originals, "SAMPLE", 2)
    status, out, errors = look(name)
    assert (status, errors) == (0, [])
    assert "val: 2 images checked, 0 problem(s)" in out
    assert f"zss_{name}_train, zss_{name}_val: ready" in out
    assert "; 2 pairs of each were read, --check reads all" in out
    status, out, errors = look(name, "--check", "--split", "val")
    assert (status, errors) == (0, [])
    assert "val: 4 images checked, 0 problem(s)" in out
    assert "(ignored)" in out
    assert "train" not in out.split("val: 4 images checked")[1]
    assert sorted(trees[name].rglob("*")) == before


@pytest.mark.parametrize("name", SCRIPTS)
def test_zss_check_reads_the_same(name, trees, run_check):
    status, out, errors = run_check(name)
    assert (status, errors) == (0, [])
    assert f"{name}: {len(load_benchmark(name).classes)} classes, all unseen: it is only" in out
    assert f"val: {COUNTS[name][1]} images checked, 0 problem(s)" in out
    assert "the benchmark has" in out


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_missing_is_said_with_where_to_get_it(look, trees, name):
    site = {"ade20k150": "sceneparsing.csail.mit.edu", "cityscapes": "www.cityscapes-dataset.com"}
    status, _, errors = look(name, complete=False)
    assert status == 2
    expected = load_benchmark(name).splits["val"].expected_images
    assert f"val: the folder holds 4 images, the benchmark has {expected}" in errors[1]
    shutil.rmtree(trees[name])
    status, _, errors = look(name)
    assert (status, len(errors)) == (2, 2)
    assert all("no such folder; get " in line and site[name] in line for line in errors)
    with pytest.raises(Exception, match=rf"no such folder; run `python datasets/{SCRIPTS[name]}"):
        DatasetCatalog.get(f"zss_{name}_val")


def test_masks_without_class_ids_are_told_from_those_with(look, trees):
    folder = trees["cityscapes"] / "gtFine/val/lindau"
    (folder / "lindau_000001_000019_gtFine_labelIds.png").unlink()
    (line,) = look("cityscapes")[2]
    assert "gtFine/val: no mask for 1 (lindau_000001_000019) but 2 .png files, such as " in line
    assert "lindau_000001_000019_gtFine_color.png; masks are read from _gtFine_labelIds.png" in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_masks_with_train_ids_are_refused(name, look, trees):
    """Masks that another program has converted: 255 where the originals hold a label."""
    lut = load_benchmark(name).lut.astype(np.uint8)
    for record in DatasetCatalog.get(f"zss_{name}_val"):
        path = record["sem_seg_file_name"]
        Image.fromarray(lut[np.asarray(Image.open(path))]).save(path)
    errors = look(name, "--check", "--split", "val")[2]
    assert errors
    assert all("value 255 (" in x and "without a train id; fetch the" in x for x in errors)


def test_ids_become_classes_when_they_are_read(trees):
    classes = load_benchmark("ade20k150").classes
    (record, *_) = DatasetCatalog.get("zss_ade20k150_val")
    assert record["image_id"] == "ADE_val_00000001"
    labels = read_labels(record["sem_seg_file_name"], MetadataCatalog.get("zss_ade20k150_val"))
    names = ["other" if i == 255 else classes[i] for i in labels[0, ::8]]
    assert names[:5] == ["other", "wall", "building", "sky", "floor"]
    assert names[-1] == "door"

    records = DatasetCatalog.get("zss_cityscapes_val")
    assert [r["image_id"] for r in records] == [
        f"{city}_{i:06d}_000019" for city in ("frankfurt", "lindau") for i in range(2)
    ]
    assert records[0]["file_name"].endswith(
        "leftImg8bit/val/frankfurt/frankfurt_000000_000019_leftImg8bit.png"
    )
    metadata = MetadataCatalog.get("zss_cityscapes_val")
    found = [read_labels(r["sem_seg_file_name"], metadata)[0] for r in records[:2]]
    # Raw ids 0..15, and 16..33: void, road 7, sidewalk 8, building, wall, fence; pole 17, ...
    assert list(dict.fromkeys(found[0])) == [255, 0, 1, 2, 3, 4]
    assert list(dict.fromkeys(found[1])) == [255, *range(5, 19)]


@pytest.mark.parametrize("name", ["ade20k", "cityscapes"])
def test_the_configs_find_their_data(trees, name, run_check):
    cfg = default_config()
    path = ROOT / f"configs/maskclip_{name}.yaml"
    cfg.merge_from_file(str(path))
    require_datasets(cfg, train=False)
    status, out, errors = run_check(path)
    assert (status, errors) == (0, [])
    assert f"{cfg.DATASETS.TRAIN[0]}: not checked, it gives the class names and no labels" in out
    assert "val: 4 images checked, 0 problem(s)" in out


def test_a_config_that_would_train_on_them_is_refused_by_check(trees, run_check, tmp_path):
    path = tmp_path / "run.yaml"
    base = ROOT / "configs/Base-TrainingFree-ADE20K.yaml"
    path.write_text(f"_BASE_: {base}\nSOLVER: {{MAX_ITER: 5}}\n")
    status, _, errors = run_check(path)
    assert status == 2
    assert "DATASETS.TRAIN zss_ade20k150_train has no seen classes" in errors[0]
