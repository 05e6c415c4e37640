"""Pseudo labels against the ground truth: counts by hand, and the command on a run."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from zss_d2.analysis.pseudo import quality as pseudo
from zss_d2.analysis.pseudo.command import main
from zss_d2.data.files.encoding import read_labels
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer

NAMES = ("seen", "cat", "dog", "cow")


def test_counts_become_shares():
    pairs = np.zeros((5, 5), int)  # rows: truth, the last one void; columns: label, the last none
    pairs[1] = [1, 6, 2, 0, 1]
    pairs[2] = [0, 3, 5, 0, 2]
    pairs[4] = [0, 1, 4, 0, 5]
    result = pseudo.quality(pairs, NAMES, (1, 2, 3))
    assert result.coverage == pytest.approx(100 * 22 / 30)
    assert result.accuracy == pytest.approx(100 * 11 / 17)
    assert result.on_void == pytest.approx(100 * 5 / 22)
    assert result.classes["cat"] == {
        "pixels": 10,
        "coverage": 90.0,
        "recall": 60.0,
        "precision": 60.0,
    }
    assert result.classes["dog"]["precision"] == pytest.approx(100 * 5 / 11)
    assert math.isnan(result.classes["cow"]["recall"])


@pytest.fixture
def run(toy_voc, make_cfg, tmp_path):
    folder = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(folder))
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(folder)).save("model_final")
    return folder


def test_the_command_counts_every_pixel_without_a_seen_label(run, tmp_path, capsys):
    """Also of an inductive run; with the default settings each of them gets a label."""
    assert main([str(run), "--images", "3", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "100.0 % of the pixels without a seen label get a pseudo label" in said
    assert "The unseen classes of zss_voc_train are those that tables report" in said
    with (tmp_path / "out/pseudo.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    metadata = pseudo.MetadataCatalog.get("zss_voc_train")
    records = pseudo.DatasetCatalog.get("zss_voc_train")
    chosen = [records[i] for i in pseudo.evenly_spaced(len(records), 3)]
    truth = [read_labels(record["sem_seg_file_name"], metadata) for record in chosen]
    assert list(rows) == list(metadata.unseen_classes)
    for name, row in rows.items():
        number = sum(int((x == metadata.stuff_classes.index(name)).sum()) for x in truth)
        assert int(row["pixels"]) == number
        assert float(row["coverage"]) == (100.0 if number else pytest.approx(math.nan, nan_ok=True))


@pytest.mark.parametrize(
    ("opts", "coverage"), [(("THRESHOLD", "1.0"), 0.0), (("AGREEMENT", "(1.0, 0.5)"), 100.0)]
)
def test_settings_of_self_training_decide(run, tmp_path, capsys, opts, coverage):
    key, value = opts
    arguments = ["--opts", f"ZERO_SHOT.SELF_TRAINING.{key}", value, "--images", "2"]
    assert main([str(run), "--output", str(tmp_path), *arguments]) == 0
    share = float(capsys.readouterr().out.split(" %")[0])
    assert share <= coverage


def test_the_leaky_setting_labels_no_void(run, tmp_path, capsys):
    """Its pixels are those of unseen objects, each of which gets a label."""
    arguments = ["--opts", "ZERO_SHOT.SELF_TRAINING.PIXELS", "unseen_location", "--images", "3"]
    assert main([str(run), "--output", str(tmp_path), *arguments]) == 0
    said = capsys.readouterr().out
    assert said.startswith("100.0 % of the pixels") and "; 0.0 % stand on void" in said


def test_another_data_set_is_refused(run, tmp_path, capsys):
    for name, message in (
        ("zss_context59_val", "must have the classes of the training"),
        ("nothing", "is not registered"),
    ):
        assert main([str(run), "--dataset", name, "--output", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
