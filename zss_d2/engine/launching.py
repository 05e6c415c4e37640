"""From command-line arguments to running processes, with errors a user can act on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.engine import launch

from zss_d2.data.custom import register_custom
from zss_d2.engine.config_file import load_config
from zss_d2.errors import ZssError, user_message


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_devices(cfg: CfgNode, processes: int) -> None:
    """Raise `ZssError` if this machine cannot run ``processes`` processes on ``MODEL.DEVICE``."""
    if cfg.MODEL.DEVICE.startswith("cuda"):
        gpus = torch.cuda.device_count()
        if processes > gpus:
            remedy = f"use at most --num-gpus {gpus}" if gpus else "add MODEL.DEVICE cpu"
            raise ZssError(
                f"--num-gpus {processes}: MODEL.DEVICE is {cfg.MODEL.DEVICE} and this machine has "
                f"{gpus} GPUs; {remedy}"
            )
        return
    cores = cpu_cores()
    if processes > cores:
        raise ZssError(
            f"--num-gpus {processes}: MODEL.DEVICE is {cfg.MODEL.DEVICE} and this machine has "
            f"only {cores} CPU cores; use at most --num-gpus {cores}"
        )


def run(main: Callable[[CfgNode, argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Launch ``main(cfg, args)`` in ``--num-gpus`` processes on each of ``--num-machines``.

    An error of the user's, in whichever process, ends with one line and exit status 2.
    """
    try:
        cfg = load_config(args)
        check_devices(cfg, args.num_gpus)
        launch(
            _start,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, cfg, args),
        )
    except Exception as error:
        # A worker process or loader hands its ZssError on as text inside another exception.
        if not isinstance(error, ZssError) and f"{ZssError.__name__}: " not in str(error):
            raise
        print(f"error: {user_message(error)}", file=sys.stderr)
        sys.exit(2)


def _start(
    main: Callable[[CfgNode, argparse.Namespace], object], cfg: CfgNode, args: argparse.Namespace
) -> None:
    """One process of the run; processes on a CPU share its cores instead of fighting for them.

    A spawned process starts with the built-in data sets only, so the custom ones are registered.
    """
    register_custom(cfg.DATASETS.CUSTOM)
    if args.num_gpus > 1 and cfg.MODEL.DEVICE == "cpu":
        torch.set_num_threads(max(1, cpu_cores() // args.num_gpus))
    main(cfg, args)
