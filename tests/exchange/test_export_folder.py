"""``zss export --format folder``: what `save_pretrained` writes, from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.modeling import build_model

from tests.conftest import ROOT
from tests.test_api import a_run, scores
from zss_d2 import load_model
from zss_d2.config.model_folder import ABOUT, CARD
from zss_d2.engine import ZeroShotTrainer
from zss_d2.exchange.export.command import main


def test_a_run_becomes_a_folder(make_cfg, tmp_path, capsys):
    expected = a_run(tmp_path / "run", make_cfg(), "model_final")
    command = [str(tmp_path / "run"), "--format", "folder", "--output", str(tmp_path / "shared")]
    assert main(command) == 0
    assert "MiB; README.md has a licence to fill in" in capsys.readouterr().out
    assert torch.equal(scores(load_model(tmp_path / "shared", device="cpu")), expected)
    assert main(command) == 2
    assert "holds a model; give another folder, or overwrite=True" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_training_free_run_has_its_figures(make_cfg, tmp_path, toy_voc):
    folder = tmp_path / "run"
    cfg = make_cfg("MODEL.META_ARCHITECTURE", "MaskCLIP", "MODEL.VISUAL_PROMPTS.LENGTH", 0)
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir()
    ZeroShotTrainer.test(cfg, build_model(cfg).eval())
    (folder / "config.yaml").write_text(cfg.dump())
    assert main([str(folder), "--format", "folder", "--output", str(tmp_path / "shared")]) == 0
    about = json.loads((tmp_path / "shared" / ABOUT).read_text())
    written = json.loads((folder / "results.json").read_text())["zss_voc_val"]
    assert about["results"]["metrics"]["zss_voc_val"]["pAcc"] == written["pAcc"]
    assert "| pAcc |" in (tmp_path / "shared" / CARD).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "folder", "--classes", "cat"], "--classes is of files, and --format is fol"),
        (["--format", "folder", "--size", "512"], "--size is of files"),
        (["--format", "folder", "--argmax", "inside"], "--argmax is of files"),
        (["--format", "folder", "--int8"], "--int8 is of files"),
        (["--overwrite"], "--overwrite is of --format folder"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, capsys, options, message):
    config = str(ROOT / "configs/maskclip_mini.yaml")
    assert main([config, "--output", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
