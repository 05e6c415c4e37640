"""Runs to export: folders with a config and weights, of random numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from tests.conftest import TINY_CONFIG
from tests.modeling.all_methods import METHODS
from zss_d2.config.defaults import default_config
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer

# By name: overrides of the tiny configuration. Students without attention, with windows, and one of
# another library.
MODELS = {
    **METHODS,
    "timm": (
        *METHODS["CLIPZSS"],
        *("MODEL.BACKBONE.NAME", "build_timm_backbone"),
        *("MODEL.CLIP_ZSS.ENCODER.NAME", "test_resnet", "MODEL.CLIP_ZSS.ENCODER.NORM", "BN"),
    ),
    "smp": (
        *METHODS["CLIPZSS"],
        *("MODEL.BACKBONE.NAME", "build_smp_backbone"),
        *("MODEL.CLIP_ZSS.ENCODER.NAME", "segformer/tu-test_resnet"),
    ),
}


@pytest.fixture(autouse=True, scope="session")
def without_traces() -> Iterator[None]:
    """pytest keeps what torch.export logs of every step, which takes longer than the export."""
    logger = logging.getLogger("torch.__trace")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_run("LDVC", "KEY", value, ...)``: folder of a run of one of `MODELS`."""

    def make(name: str, *overrides: object) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        cfg = default_config()
        cfg.merge_from_file(str(TINY_CONFIG))
        cfg.merge_from_list(["OUTPUT_DIR", str(folder), *MODELS[name], *overrides])
        model = ZeroShotTrainer.build_model(cfg).eval()
        spread(model)
        ZeroShotCheckpointer(model, str(folder)).save("model_final", iteration=49)
        (folder / "config.yaml").write_text(cfg.dump())
        return folder

    return make


def spread(model: nn.Module) -> None:
    """Let norms have statistics as after a training, so that folding them is no small matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
