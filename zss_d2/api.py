"""The public way in: a model from a config and weights."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

import torch

from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.modeling import ZeroShotSegmentor


def load_model(
    config: str | PathLike[str],
    weights: str | PathLike[str] | None = None,
    device: str = "auto",
    opts: Sequence[str] = (),
) -> ZeroShotSegmentor:
    """The model of a config, with its weights, ready to segment.

    Args:
        config: yaml file of configs/, or ``config.yaml`` of a run.
        weights: checkpoint; None: ``MODEL.WEIGHTS`` of the config, if it names one.
        device: of `torch.device`, or "auto": CUDA where there is a GPU, else MPS, else the CPU.
        opts: config keys and values, in turn.

    Returns:
        A segmentor in evaluation mode.

    Raises:
        ZssError: config or weights are missing, wrong, or do not belong together.
    """
    found = choose_device() if device == "auto" else device
    overrides = ["MODEL.DEVICE", found, *opts]
    if weights is not None:
        overrides += ["MODEL.WEIGHTS", fspath(weights)]
    cfg = load_config(config, overrides)
    model = ZeroShotTrainer.build_model(cfg).eval()
    ZeroShotCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    model.require_setting()
    return model


def choose_device() -> str:
    """The fastest kind of device that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
