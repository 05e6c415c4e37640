import argparse
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.image import imread

from zss_d2.data import toy_custom
from zss_d2.data.files import read_mask
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.errors import ZssError
from zss_d2.tools import panel
from zss_d2.tools.runs import choose


def test_images_with_something_unseen_come_first(toy_voc):
    records = DatasetCatalog.get("zss_voc_val")
    chosen = choose(records, len(records), list(range(15, 20)))
    assert sorted(r["image_id"] for r in chosen) == [r["image_id"] for r in records]
    unseen = [bool((read_mask(r["sem_seg_file_name"]) // 5 == 3).any()) for r in chosen]
    assert unseen == sorted(unseen, reverse=True)
    assert any(unseen)
    assert len(choose(records, 2, [15, 16, 17, 18, 19])) == 2


def test_a_picture_of_a_run(toy_voc, make_cfg, tmp_path):
    run = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(run))
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(run)).save("model_final")
    output = tmp_path / "panel.png"
    assert panel.main([str(run), "--images", "2", "--output", str(output)]) == 0
    height, width = imread(output).shape[:2]
    assert width > height > 300


def save_run(folder: Path, make_cfg, *overrides: object) -> Path:
    cfg = make_cfg("OUTPUT_DIR", str(folder), *overrides)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(folder)).save("model_final")
    return folder


def test_two_runs_of_one_method_have_a_column_each(toy_voc, make_cfg, tmp_path):
    folders = [save_run(tmp_path / name, make_cfg) for name in ("photo", r"$\frac$")]
    figure = panel.panel(folders, 1)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["photo", "ground truth", "photo", r"$\frac$"]
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    assert not np.array_equal(pictures[2], pictures[3])  # other weights


def test_a_run_is_named_once(toy_voc, make_cfg, tmp_path, capsys):
    folder = save_run(tmp_path / "run", make_cfg)
    assert panel.main([str(folder), str(folder / ".." / "run")]) == 2
    assert "is given twice (also as" in capsys.readouterr().err


def own_data(make_cfg, tmp_path, monkeypatch, name: str) -> Path:
    """A run that was trained in the folder ``name``, on data that lie there."""
    home = tmp_path / name
    home.mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(home)
    toy_custom.generate(home / "yard")
    load_config(argparse.Namespace(config_file="", opts=["DATASETS.CUSTOM", "('yard/yard.yaml',)"]))
    sets = {"TRAIN": ("zss_yard_train",), "TEST": ("zss_yard_val",), "CUSTOM": ("yard/yard.yaml",)}
    overrides = [x for key, value in sets.items() for x in (f"DATASETS.{key}", value)]
    folder = save_run(home / "run", make_cfg, *overrides)
    for dataset in ("zss_yard_train", "zss_yard_val"):
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)
    return folder


def test_own_data_is_found_from_elsewhere(make_cfg, tmp_path, monkeypatch):
    run = own_data(make_cfg, tmp_path, monkeypatch, "project")
    monkeypatch.chdir(tmp_path)
    assert len(panel.panel([run], 1).axes) == 3


def test_own_data_of_one_name_are_not_taken_for_each_other(make_cfg, tmp_path, monkeypatch):
    runs = [own_data(make_cfg, tmp_path, monkeypatch, name) for name in ("first", "second")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZssError, match=r"zss_yard_val of .*second/run .* different data sets"):
        panel.panel(runs, 1)


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert panel.main([str(tmp_path / "nothing")]) == 2
    assert "nothing is no folder of a run: config.yaml is missing" in capsys.readouterr().err


def test_runs_on_different_data_cannot_share_a_picture(toy_voc, make_cfg, tmp_path):
    for name in ("zss_voc_val", "zss_voc_train"):
        cfg = make_cfg("DATASETS.TEST", (name,))
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(cfg.dump())
    folders = [tmp_path / "zss_voc_val", tmp_path / "zss_voc_train"]
    with pytest.raises(ZssError, match="different data sets: zss_voc_train, zss_voc_val"):
        panel.panel(folders, 1)
