"""Configs of training-free methods: one for each method and benchmark, by the papers' protocol."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import open_clip
import pytest
from detectron2.modeling import build_model

from tests.config.test_defaults import TRAINING_FREE
from tests.conftest import ROOT
from zss_d2.engine import load_config
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import protocol_of

METHODS = ("maskclip", "sclip", "clearclip", "naclip", "resclip", "clip_surgery", "gem")
SETS = ("voc20", "voc21", "context59", "context60", "coco", "ade20k", "cityscapes", "mini")


@pytest.fixture(scope="module", autouse=True)
def twelve_blocks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a tiny CLIP with as many blocks as ViT-B/16."""
    folder, tiny = tmp_path_factory.mktemp("models"), open_clip.get_model_config("zss-tiny")
    tiny["vision_cfg"]["layers"] = 12
    (folder / "zss-twelve-blocks.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(folder)
    return "zss-twelve-blocks"


@pytest.mark.parametrize("path", TRAINING_FREE, ids=lambda path: path.stem)
def test_every_one_makes_a_model(path: Path, twelve_blocks):
    """Of another size, but with the blocks that the settings speak of; one sentence is enough."""
    small = ["MODEL.CLIP.NAME", twelve_blocks, "MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "cpu"]
    # A base config has no data set yet.
    data = ["DATASETS.TRAIN", ("zss_voc_train",)] if path.stem == "Base-TrainingFree" else []
    cfg = load_config(path, [*small, "MODEL.CLIP.TEMPLATE_SET", "single", *data])
    model = build_model(cfg)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert set(model.words) <= set(model.classes)


def test_a_window_so_narrow_that_scores_would_be_nan_is_refused():
    with pytest.raises(ZssError, match="NACLIP_SIGMA is 1e-30; use 0.01 or more"):
        load_config(ROOT / "configs/naclip_mini.yaml", ["MODEL.CLIP.DENSE.NACLIP_SIGMA", "1e-30"])


@pytest.mark.parametrize(("method", "name"), list(product(METHODS, SETS)))
def test_each_method_has_one_for_each_benchmark(method, name):
    protocol = protocol_of(load_config(ROOT / f"configs/{method}_{name}.yaml"))
    tokens = protocol["dense_tokens"]
    chosen = {"maskclip": "value", "resclip": "naclip"}.get(method, method)
    assert tokens["DENSE_TOKENS"] == chosen
    assert ("DENSE.RESCLIP_WEIGHT" in tokens) == (
        method in ("sclip", "clearclip", "naclip", "resclip")
    )
    assert bool(tokens.get("DENSE.RESCLIP_WEIGHT")) == (method == "resclip")
    if name == "mini":
        return
    usual = {"cityscapes": 560, "coco": 448}.get(name, 336)
    assert protocol["min_size"] == (448 if method == "clearclip" else usual)
    assert protocol["slide"] == {"crop": 224, "stride": 112}
    assert protocol["position_resize"] == "bicubic"
    assert ("background" in protocol["words"]) == (name == "voc21")
    assert ("boat" in protocol["words"]) == (name in ("voc20", "voc21"))
    assert bool(protocol.get("background_below")) == (name in ("voc21", "context60"))
