"""A model in one call: from a config of the repository, or from what a run has left."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

import zss_d2
from tests.conftest import ROOT, TINY_CONFIG
from tests.modeling.method_tester import batch
from tests.modeling.test_maskclip import OVERRIDES as MASKCLIP
from zss_d2 import load_model
from zss_d2.analysis.device import works
from zss_d2.config.values import flatten
from zss_d2.engine import ZeroShotCheckpointer, load_config
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.maskclip import MaskCLIP
from zss_d2.modeling.methods.maskclip.recommended import DEFAULT_CONFIG

CPU = {"device": "cpu"}
MINI = (
    *("DATASETS.TRAIN", '("zss_mini_train",)', "DATASETS.TEST", "()"),
    *("MODEL.CLIP.TEMPLATES", '["a photo of a {}."]'),
)


def scores(model: torch.nn.Module) -> torch.Tensor:
    torch.manual_seed(7)
    (item,) = batch((64, 64))
    with torch.inference_mode():
        return model([item])[0]["sem_seg"]


def a_run(folder: Path, cfg: CfgNode, *checkpoints: str) -> torch.Tensor:
    """What a training leaves; returns the scores of its last checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    model = build_model(cfg).eval()
    for name in checkpoints:
        for parameter in model.decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        ZeroShotCheckpointer(model, str(folder)).save(name)
    return scores(model)


def test_a_config_and_weights(make_cfg, tmp_path):
    expected = a_run(tmp_path / "run", make_cfg(), "weights")
    for kind in (str, Path):
        model = load_model(kind(TINY_CONFIG), kind(tmp_path / "run/weights.pth"), "cpu")
        assert not model.segmentor.training
        assert torch.equal(scores(model), expected)


def test_a_tilde_is_the_home_folder(make_cfg, tmp_path, monkeypatch):
    """Which no shell expands here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = a_run(tmp_path / "run", make_cfg(), "weights")
    assert torch.equal(scores(load_model("~/run", "~/run/weights.pth", "cpu")), expected)


def test_weights_that_the_config_names(make_cfg, tmp_path):
    expected = a_run(tmp_path / "run", make_cfg(), "weights")
    config = tmp_path / "mine.yaml"
    config.write_text(f"_BASE_: {TINY_CONFIG}\nMODEL: {{WEIGHTS: {tmp_path}/run/weights.pth}}\n")
    assert torch.equal(scores(load_model(config, **CPU)), expected)


@pytest.mark.parametrize("name", ["", "config.yaml"])
def test_a_run_comes_with_its_last_checkpoint(make_cfg, tmp_path, name):
    """And not with MODEL.WEIGHTS, which its training started from."""
    started_from = tmp_path / "start.pth"
    cfg = make_cfg("MODEL.WEIGHTS", str(started_from))
    ZeroShotCheckpointer(build_model(cfg), str(tmp_path)).save("start")
    expected = a_run(tmp_path / "run", cfg, "model_0000004", "model_final")
    assert torch.equal(scores(load_model(tmp_path / "run" / name, **CPU)), expected)
    other = load_model(tmp_path / "run" / name, started_from, "cpu")
    assert not torch.equal(scores(other), expected)


def test_a_run_is_loaded_from_anywhere(make_cfg, tmp_path, monkeypatch):
    """Files that it named by relative paths lie above its folder."""
    shipped = Path(zss_d2.__file__).parent / "clip/mini/seed0.safetensors"
    (tmp_path / "files").mkdir()
    shutil.copy(shipped, tmp_path / "files/clip.safetensors")
    monkeypatch.chdir(tmp_path)
    clip = ("MODEL.CLIP.NAME", "mini", "MODEL.CLIP.PRETRAINED", "files/clip.safetensors")
    data = ("DATASETS.TRAIN", ("zss_mini_train",), "DATASETS.TEST", ())
    cfg = make_cfg(*clip, *data, "MODEL.CLIP.TEMPLATES", ["a photo of a {}."])
    expected = a_run(tmp_path / "output/run", cfg, "model_final")
    monkeypatch.chdir(ROOT)
    assert torch.equal(scores(load_model(tmp_path / "output/run", **CPU)), expected)


def test_a_config_yaml_that_is_of_no_run_is_a_config(make_cfg, tmp_path):
    expected = a_run(tmp_path / "run", make_cfg(), "weights")
    own = tmp_path / "config.yaml"
    own.write_text(f"_BASE_: {TINY_CONFIG}\n")
    assert torch.equal(scores(load_model(own, tmp_path / "run/weights.pth", "cpu")), expected)


def test_no_weights_of_a_run_or_of_one_that_must_have_some(make_cfg, tmp_path):
    a_run(tmp_path / "run", make_cfg())
    with pytest.raises(ZssError, match="names no weights, and LDVC .* as the argument weights"):
        load_model(tmp_path / "run", **CPU)
    with pytest.raises(ZssError, match="names no weights, and LDVC .* as the argument weights"):
        load_model(TINY_CONFIG, training_free=False, **CPU)


@pytest.mark.parametrize(
    ("opts", "tokens"),
    [
        ((), "NACLIP on CLIP zss-tiny"),
        (
            ("MODEL.CLIP.NAME", "mini", "MODEL.CLIP.PRETRAINED", "seed0", *MINI),
            "CLIP Surgery on CLIP mini",
        ),
        (("MODEL.META_ARCHITECTURE", "ZegCLIP", "MODEL.TEXT_PROMPTS.LENGTH", "2"), "NACLIP on"),
    ],
)
def test_a_config_without_weights_is_of_what_needs_none(caplog, opts, tokens):
    """With the CLIP, sizes and windows of the config, and said in a line."""
    protocol = ("TEST.FLIP", "True", "INPUT.MIN_SIZE_TEST", "48")
    with caplog.at_level("WARNING"):
        model = load_model(TINY_CONFIG, opts=[*protocol, *opts], **CPU)
    (line,) = [text for text in caplog.messages if "names no weights" in text]
    assert f"so {tokens}" in line
    assert "takes its place; give a checkpoint as the argument weights" in line
    assert isinstance(model.segmentor, MaskCLIP)
    assert model.segmentor.protocol.flip
    assert model.cfg.INPUT.MIN_SIZE_TEST == 48
    words = ["grass", "wood"]
    labels = model.predict(np.zeros((40, 70, 3), np.uint8), words).labels
    assert labels.shape == (40, 70)


def test_no_config_is_what_the_tables_recommend(caplog):
    """As one of configs/, which an installed package has not."""
    with caplog.at_level("WARNING"):
        model = load_model(
            opts=["MODEL.CLIP.PRETRAINED", "", "MODEL.CLIP.TEMPLATE_SET", "single"], **CPU
        )
    assert any("No config is given, so images are labelled by NACLIP" in x for x in caplog.messages)
    assert model.predict(np.zeros((40, 70, 3), np.uint8), ["cat", "dog"]).labels.shape == (40, 70)
    shipped, ours = (
        flatten(load_config(path)) for path in (DEFAULT_CONFIG, ROOT / "configs/resclip_voc20.yaml")
    )
    read = [k for k in ours if k.startswith(("MODEL.", "TEST.")) or k.endswith("_TEST")]
    read.remove("MODEL.MASKCLIP.WORDS")  # for VOC's classes
    assert {k: shipped[k] for k in read} == {k: ours[k] for k in read}
    with pytest.raises(ZssError, match="weights are those of a method; give its config too"):
        load_model(weights="some.pth", **CPU)


def test_a_tower_whose_blocks_resclip_does_not_name_goes_without_it(caplog):
    opts = ["MODEL.CLIP.NAME", "zss-tiny", "MODEL.CLIP.PRETRAINED", ""]
    opts += ["MODEL.CLIP.TEMPLATE_SET", "single"]
    with caplog.at_level("WARNING"):
        assert load_model(opts=opts, **CPU).cfg.MODEL.CLIP.DENSE.RESCLIP_WEIGHT == 0
    assert any("labelled by NACLIP on CLIP zss-tiny" in x for x in caplog.messages)
    asked = ["MODEL.CLIP.DENSE.RESCLIP_BLOCKS", "[0, 1]"]
    model = load_model(opts=[*opts, *asked], **CPU)
    assert model.segmentor.image_encoder.dense_tokens.settings[asked[0]] == [0, 1]
    assert model.cfg.MODEL.CLIP.DENSE.RESCLIP_WEIGHT == 0.4


def test_a_method_without_weights_needs_none():
    opts = list(map(str, MASKCLIP))
    model = load_model(TINY_CONFIG, opts=opts, **CPU)
    assert scores(model).shape == (20, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": "no/such.yaml"}, "no/such.yaml"),
        ({"weights": "no/such.pth"}, "no/such.pth does not exist"),
        ({"device": "tpu"}, "device is 'tpu'; give 'auto', 'cpu'"),
        ({"device": "meta"}, "device is 'meta'; give 'auto'"),
        ({"device": "cuda:77"}, "device is 'cuda:77', which this machine lacks; give 'auto'"),
        ({"opts": ["MODEL.DEVICE", "cpu"]}, "opts has MODEL.DEVICE; .* argument device"),
        ({"opts": ["MODEL.WEIGHTS", "x"]}, "opts has MODEL.WEIGHTS; .* argument weights"),
        ({"opts": ["MODEL.DEVISE", "cpu"]}, "MODEL.DEVISE"),
        ({"config": "."}, "is no folder of a run"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZssError, match=message):
        load_model(**{"config": TINY_CONFIG, "device": "cpu"} | arguments)


@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0", torch.device("cpu")])
def test_devices(make_cfg, tmp_path, device):
    a_run(tmp_path / "run", make_cfg(), "weights")
    model = load_model(TINY_CONFIG, tmp_path / "run/weights.pth", device)
    expected = "cuda" if works("cuda") else "mps" if works("mps") else "cpu"
    assert model.device.type == (expected if device == "auto" else "cpu")


def test_a_training_under_amp_is_loaded_on_a_cpu(make_cfg, tmp_path):
    """AMP is of training; the config of the run has it with a GPU."""
    cfg = make_cfg("MODEL.DEVICE", "cpu")
    expected = a_run(tmp_path / "run", cfg, "model_final")
    cfg.merge_from_list(["MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True])
    (tmp_path / "run/config.yaml").write_text(cfg.dump())
    assert torch.equal(scores(load_model(tmp_path / "run", **CPU)), expected)
