"""Models of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.errors import ZssError


def load_run(folder: Path, *overrides: str) -> tuple[CfgNode, nn.Module]:
    """Config and model, with its last weights, of a finished run.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        overrides: config keys and values, in turn.

    Raises:
        ZssError: the folder is no run.
    """
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise ZssError(f"{folder} is no folder of a run: config.yaml is missing")
    cfg = load_config(argparse.Namespace(config_file=str(config_file), opts=list(overrides)))
    model = ZeroShotTrainer.build_model(cfg).eval()
    checkpointer = ZeroShotCheckpointer(model, str(folder))
    trained = checkpointer.has_checkpoint()
    checkpointer.load(checkpointer.get_checkpoint_file() if trained else cfg.MODEL.WEIGHTS)
    return cfg, model
