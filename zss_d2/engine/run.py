"""From command-line arguments to running processes, with errors a user can act on."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import launch

from zss_d2.config import default_config, validate_config
from zss_d2.config_rules import flatten, without_effect
from zss_d2.data.custom import register_custom
from zss_d2.data.vocabulary import require_distinct_tests
from zss_d2.errors import ZssError, user_message


def load_config(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, ``--config-file`` and ``KEY VALUE`` overrides into a frozen config.

    Raises:
        ZssError: missing file, unknown key, value of another type, impossible setting.
    """
    cfg, useless = default_config(), set()
    if args.config_file:
        if not os.path.isfile(args.config_file):
            raise ZssError(f"config file {args.config_file} does not exist; see configs/")
        # Upstream's default would run python code that a yaml file names.
        merge = functools.partial(cfg.merge_from_file, allow_unsafe=False)
        _merge(merge, args.config_file, args.config_file)
        # What the command line turns off below had its effect in the file, and the reverse.
        useless = without_effect(cfg, _own_keys(args.config_file))
    _merge(cfg.merge_from_list, args.opts, "command line")
    validate_config(cfg, given=useless.union(args.opts[::2]))
    register_custom(cfg.DATASETS.CUSTOM)
    require_distinct_tests(cfg.DATASETS.TEST)
    cfg.freeze()
    return cfg


def _own_keys(config_file: str) -> set[str]:
    """Dotted keys that a config file itself names.

    None for the ``config.yaml`` of a run, which has every key and so names none in particular.
    """
    keys = set(flatten(yaml.safe_load(Path(config_file).read_text(encoding="utf-8")) or {}))
    everything = set(flatten(default_config()))
    return set() if len(everything - keys) < len(everything) / 2 else keys


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


def _merge(merge: Callable, source: object, name: str) -> None:
    try:
        merge(source)
    except (KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        remedy = ""
        if "Type mismatch" in str(reason):
            remedy = "; write 1.0 where the default has decimals, and quotes around text"
        raise ZssError(f"{name}: {reason}{remedy}") from error
