"""Registered data sets: names, metadata, records, and what a broken tree says."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import zss_d2.data.spec.registry as registry
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.errors import ZssError


def test_metadata_states_the_classes_and_the_split():
    metadata = MetadataCatalog.get("zss_voc_val")
    voc = load_benchmark("voc")
    assert metadata.stuff_classes == list(voc.classes)
    assert metadata.seen_classes == list(voc.seen_names)
    assert metadata.unseen_classes == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    assert metadata.ignore_label == 255
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.benchmark == "voc"


def test_records_pair_images_and_masks_in_the_order_of_their_ids(datasets):
    records = DatasetCatalog.get("zss_voc_train")
    assert len(records) == 10
    assert [r["image_id"] for r in records] == [f"toy_train_aug_{i:04d}" for i in range(10)]
    for record in records:
        assert record["dataset_name"] == "zss_voc_train"
        for key in ("file_name", "sem_seg_file_name"):
            assert Path(record[key]).stem == record["image_id"]
            assert Path(record[key]).is_file()


def test_the_environment_is_read_when_a_data_set_is_loaded(datasets, tmp_path, monkeypatch):
    assert DatasetCatalog.get("zss_voc_val")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(datasets, elsewhere)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(elsewhere))
    assert DatasetCatalog.get("zss_voc_val")[0]["file_name"].startswith(str(elsewhere))
    assert MetadataCatalog.get("zss_voc_val").image_root.startswith(str(elsewhere))
    assert MetadataCatalog.get("zss_voc_val").sem_seg_root.startswith(str(elsewhere))


def test_registering_again_is_safe(datasets):
    registry.register_all()
    registry.register_benchmark(load_benchmark("voc"))
    assert len(DatasetCatalog.get("zss_voc_val")) == 5


def test_a_short_data_set_is_announced(datasets, caplog, monkeypatch):
    monkeypatch.setattr(registry, "log_first_n", lambda level, text, key: logging.log(level, text))
    DatasetCatalog.get("zss_voc_val")
    assert "zss_voc_val holds 5 images, the benchmark 1449" in caplog.text


def _error() -> str:
    with pytest.raises(ZssError) as caught:
        DatasetCatalog.get("zss_voc_train")
    return str(caught.value)


def test_a_missing_root_names_folder_command_and_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    message = _error()
    assert str(tmp_path / "nowhere" / "zss" / "voc" / "images" / "train") in message
    assert "datasets/prepare_voc.py" in message
    assert "DETECTRON2_DATASETS" in message


@pytest.mark.parametrize(("name", "script"), [("voc21", "voc"), ("context60", "context")])
def test_the_command_prepares_the_benchmark_that_is_missing(tmp_path, monkeypatch, name, script):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(ZssError, match=f"`python datasets/prepare_{script}.py --benchmark {name}`"):
        DatasetCatalog.get(f"zss_{name}_val")


def test_an_empty_folder_is_an_error(datasets):
    for image in (datasets / "zss/voc/images/train").iterdir():
        image.unlink()
    assert "no image" in _error()


def test_an_image_without_mask_is_named(datasets):
    (datasets / "zss/voc/annotations/train/toy_train_aug_0003.png").unlink()
    assert "no mask for 1 (toy_train_aug_0003)" in _error()


def test_masks_without_images_are_counted_and_the_first_named(datasets):
    for index in range(7):
        (datasets / f"zss/voc/images/train/toy_train_aug_{index:04d}.jpg").unlink()
    message = _error()
    assert "for 7 (toy_train_aug_0000, " in message
    assert "toy_train_aug_0006" not in message


def test_a_link_to_a_lost_original_is_named(datasets):
    image = datasets / "zss/voc/images/train/toy_train_aug_0002.jpg"
    image.unlink()
    image.symlink_to(datasets / "gone.jpg")
    assert "link to a file that is gone, for 1 (toy_train_aug_0002)" in _error()


def test_the_data_side_imports_no_model_and_no_engine():
    program = (
        "import sys\n"
        "import zss_d2.data.pipeline.mapper, zss_d2.data.prepare.workflow\n"
        "import zss_d2.data.synthetic.toy_voc\n"
        "print([m for m in sys.modules if m.startswith(('zss_d2.modeling', 'zss_d2.engine'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
