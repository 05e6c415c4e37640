from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.image import imread

from zss_d2.analysis import panel
from zss_d2.analysis.commands.panel import main
from zss_d2.analysis.comparison import choose
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.files.images import read_mask
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer
from zss_d2.errors import ZssError


def test_images_with_something_unseen_come_first(toy_voc):
    records = DatasetCatalog.get("zss_voc_val")
    metadata = MetadataCatalog.get("zss_voc_val")
    chosen = choose(records, len(records), metadata)
    assert sorted(r["image_id"] for r in chosen) == [r["image_id"] for r in records]
    unseen = [bool((read_mask(r["sem_seg_file_name"]) // 5 == 3).any()) for r in chosen]
    assert unseen == sorted(unseen, reverse=True)
    assert any(unseen)
    assert len(choose(records, 2, metadata)) == 2


def test_a_picture_of_a_run(toy_voc, make_cfg, tmp_path):
    run = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(run))
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(run)).save("model_final")
    output = tmp_path / "panel.png"
    assert main([str(run), "--images", "2", "--output", str(output)]) == 0
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
    figure = panel.draw(folders, 1)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["image", "ground truth", "photo", r"$\frac$"]
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    assert not np.array_equal(pictures[2], pictures[3])  # other weights


def test_a_run_is_named_once(toy_voc, make_cfg, tmp_path, capsys):
    folder = save_run(tmp_path / "run", make_cfg)
    assert main([str(folder), str(folder / ".." / "run")]) == 2
    assert "is given twice (also as" in capsys.readouterr().err


def own_data(make_cfg, tmp_path, monkeypatch, name: str) -> Path:
    """A run that was trained in the folder ``name``, on data that lie there."""
    home = tmp_path / name
    home.mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(home)
    toy_custom.generate(home / "yard")
    register_custom(["yard/yard.yaml"])
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
    assert len(panel.draw([run], 1).axes) == 3


def test_own_data_that_is_gone_is_named_and_can_be_given(make_cfg, tmp_path, monkeypatch, capsys):
    """The run was moved to where its data is not."""
    run = own_data(make_cfg, tmp_path, monkeypatch, "project")
    monkeypatch.chdir(tmp_path)
    moved = run.rename(tmp_path / "moved")
    command = [str(moved), "--images", "1", "--output", str(tmp_path / "panel.png")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "yard.yaml of DATASETS.CUSTOM is " in error
    assert "--opts DATASETS.CUSTOM \"('PATH',)\"" in error
    place = repr((str(tmp_path / "project/yard/yard.yaml"),))
    assert main([*command, "--opts", "DATASETS.CUSTOM", place]) == 0


def test_files_are_those_beside_the_run_not_others_of_that_name_here(
    make_cfg, tmp_path, monkeypatch
):
    run = own_data(make_cfg, tmp_path, monkeypatch, "first")
    own_data(make_cfg, tmp_path, monkeypatch, "second")
    cfg = RunFolder(run).config()
    assert cfg.DATASETS.CUSTOM[0] == str(tmp_path / "first/yard/yard.yaml")


def test_weights_that_a_run_names_are_found_from_elsewhere(
    toy_voc, make_cfg, tmp_path, monkeypatch
):
    run = save_run(tmp_path / "project/output/run", make_cfg, "MODEL.WEIGHTS", "weights/start.pth")
    (tmp_path / "project/weights").mkdir()
    (run / "model_final.pth").rename(tmp_path / "project/weights/start.pth")
    (run / "last_checkpoint").unlink()
    monkeypatch.chdir(tmp_path)
    cfg = RunFolder(run).config()
    RunFolder(run).model(cfg)
    assert str(tmp_path / "project/weights/start.pth") == cfg.MODEL.WEIGHTS


def test_a_model_without_trained_weights_is_said(toy_voc, make_cfg, tmp_path, capsys):
    run = save_run(tmp_path / "run", make_cfg)
    (run / "last_checkpoint").unlink()
    (run / "model_final.pth").unlink()
    RunFolder(run).model(RunFolder(run).config())
    assert capsys.readouterr().err == (
        f"note: {run} holds no checkpoint and MODEL.WEIGHTS is empty: a model without trained "
        "weights\n"
    )


def test_own_data_of_one_name_are_not_taken_for_each_other(make_cfg, tmp_path, monkeypatch):
    runs = [own_data(make_cfg, tmp_path, monkeypatch, name) for name in ("first", "second")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZssError, match=r"zss_yard_val of .*second/run .* different data sets"):
        panel.draw(runs, 1)


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "nothing is no folder of a run: config.yaml is missing" in capsys.readouterr().err


def test_runs_on_different_data_cannot_share_a_picture(toy_voc, make_cfg, tmp_path):
    for name in ("zss_voc_val", "zss_voc_train"):
        cfg = make_cfg("DATASETS.TEST", (name,))
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(cfg.dump())
    folders = [tmp_path / "zss_voc_val", tmp_path / "zss_voc_train"]
    with pytest.raises(ZssError, match="different data sets: zss_voc_train, zss_voc_val"):
        panel.draw(folders, 1)
