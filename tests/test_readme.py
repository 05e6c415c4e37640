"""What the README shows first works as it stands there."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from tests.conftest import ROOT
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_labels_an_image(tmp_path, monkeypatch):
    """Verbatim, with weights that are not trained where the demo leaves its own."""
    snippet = re.search(r"```python\n(from zss_d2 import load_model\n.*?)```", README, re.S)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    cfg = load_config("configs/ldvc_mini.yaml", ["MODEL.DEVICE", "cpu"])
    run = tmp_path / "output/demo/ldvc_mini/seed0"
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(run)).save("model_final")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("scene.png")
    names: dict = {}
    exec(snippet, names)
    result = names["result"]
    assert result.labels.shape == (96, 120)
    assert result.classes == ("red dotted thing", "grass", "wood")
    assert Image.open("labels.png").width >= 120


def test_the_first_picture_is_there_and_small():
    path = ROOT / re.search(r"!\[.*?\]\((.*?)\)", README)[1]
    assert path.stat().st_size <= 300_000
