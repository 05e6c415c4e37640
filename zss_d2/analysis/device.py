"""Configs of other machines on this one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from zss_d2.engine import load_config
from zss_d2.errors import ZssError


def config_for_this_machine(config_file: Path, opts: Sequence[str] = ()) -> CfgNode:
    """`load_config`; where this machine lacks ``MODEL.DEVICE``, with one that it has.

    Raises:
        ZssError: as `load_config`; ``opts`` name a device that is not there.
    """
    cfg = load_config(config_file, opts)
    device = cfg.MODEL.DEVICE
    if works(device):
        return cfg
    instead = "cuda" if device.startswith("cuda") and torch.cuda.is_available() else "cpu"
    if "MODEL.DEVICE" in opts[::2]:
        raise ZssError(f"MODEL.DEVICE {device}: this machine has no such device; use {instead}")
    print(
        f"note: {config_file} names MODEL.DEVICE {device}, which this machine lacks; computing on "
        f"{instead}",
        file=sys.stderr,
    )
    overrides = ["MODEL.DEVICE", instead]
    if instead == "cpu" and cfg.SOLVER.AMP.ENABLED:
        overrides += ["SOLVER.AMP.ENABLED", "False"]  # of training only
    return load_config(config_file, [*overrides, *opts])


def works(device: str | torch.device) -> bool:
    """Whether this machine has a device of `torch.device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter of a torch that was built without it
        return False
    return True
