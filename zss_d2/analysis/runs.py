"""Models of finished runs, and pictures to show them on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from torch import nn

from zss_d2.analysis.drawing import png
from zss_d2.analysis.run_files import (
    check_different,
    custom_descriptions,
    found_from,
    read_config,
)
from zss_d2.config.rules import value_of
from zss_d2.data.files.images import read_mask
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser, check_output, whole
from zss_d2.utils.writing import write_atomic

# Every config.yaml of a run has these; in one that lacks some, defaults would stand in for them.
NODES = ("DATASETS", "INPUT", "MODEL", "SOLVER", "TEST", "ZERO_SHOT")
# Keys that can name a file, beside DATASETS.CUSTOM.
FILES = ("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.CLIP_ZSS.ENCODER.WEIGHTS")
# A picture with more rows could not be drawn in one piece.
MAX_IMAGES = 100


def tool_config(config_file: Path, opts: Sequence[str] = ()) -> CfgNode:
    """`load_config` for a tool: where this machine lacks ``MODEL.DEVICE``, on one that it has.

    Raises:
        ZssError: as `load_config`; ``opts`` name a device that is not there.
    """
    cfg = _load(config_file, opts)
    device = cfg.MODEL.DEVICE
    if _works(device):
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
    return _load(config_file, [*overrides, *opts])


def _load(config_file: Path, opts: Sequence[str]) -> CfgNode:
    return load_config(config_file, list(opts))


def _works(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter of a torch that was built without it
        return False
    return True


def run_config(folder: Path, opts: Sequence[str] = ()) -> CfgNode:
    """The config that a run has left in its folder, files found as `found_from` does.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        opts: config keys and values, in turn.

    Raises:
        ZssError: the folder is no run, or a file that it needs is gone.
    """
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise ZssError(f"{folder} is no folder of a run: config.yaml is missing")
    content = read_config(folder)
    if missing := [node for node in NODES if not isinstance(content.get(node), dict)]:
        raise ZssError(
            f"{config_file} is no whole config of a run: {missing[0]} is missing; put back the "
            "config that the run was started with"
        )
    overrides: list[str] = []
    given = opts[::2]
    if "DATASETS.CUSTOM" not in given and (descriptions := custom_descriptions(folder)):
        for path in descriptions:
            if not path.is_file():
                raise ZssError(
                    f"{folder}: the data set description {path} of DATASETS.CUSTOM is neither "
                    f"above the run's folder nor here; say where it is with "
                    f"--opts DATASETS.CUSTOM \"('PATH',)\""
                )
        overrides += ["DATASETS.CUSTOM", repr(tuple(map(str, descriptions)))]
    for key in FILES:
        named = value_of(content, key)
        if named and isinstance(named, str) and key not in given:
            found = str(found_from(folder, Path(named)))
            overrides += [key, found] if found != str(Path(named)) else []
    # Compiling for a few images takes longer than they do.
    return tool_config(config_file, [*overrides, "MODEL.COMPILE", "", *opts])


def load_run(folder: Path, opts: Sequence[str] = ()) -> tuple[CfgNode, nn.Module]:
    """Config and model, with its last weights, of a finished run.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        opts: config keys and values, in turn.

    Raises:
        ZssError: the folder is no run.
    """
    cfg = run_config(folder, opts)
    return cfg, load_model(folder, cfg)


def load_model(folder: Path, cfg: CfgNode) -> nn.Module:
    """The model of a run under a config, with the weights of its last checkpoint."""
    model = ZeroShotTrainer.build_model(cfg).eval()
    checkpointer = ZeroShotCheckpointer(model, str(folder))
    trained = checkpointer.has_checkpoint()
    checkpoint = checkpointer.get_checkpoint_file() if trained else cfg.MODEL.WEIGHTS
    if not checkpoint and any(parameter.requires_grad for parameter in model.parameters()):
        print(
            f"note: {folder} holds no checkpoint and MODEL.WEIGHTS is empty: a model without "
            "trained weights",
            file=sys.stderr,
        )
    checkpointer.load(checkpoint)
    model.require_setting()
    return model


def load_runs(
    folders: Sequence[Path], opts: Sequence[str] = ()
) -> tuple[list[tuple[CfgNode, nn.Module]], str]:
    """`load_run` of every folder, and the (first) data set that all of them were tested on.

    Raises:
        ZssError: a folder is no run or given twice, or they were tested on different data sets.
    """
    check_different(folders)
    configs, names, files = [], [], []
    for folder in folders:
        configs.append(run_config(folder, opts))
        names.append(tested_set(folder, configs[-1]))
        if len(set(names)) > 1:
            different = ", ".join(sorted(set(names)))
            raise ZssError(f"the runs were tested on different data sets: {different}")
        # Data sets of one's own may share a name, which then stands for those of the last run.
        files.append([record["file_name"] for record in records_of(names[0])])
        if files[-1] != files[0]:
            raise ZssError(
                f"{names[0]} of {folder} and that of {folders[0]} are different data sets of one "
                "name; show the runs in pictures of their own"
            )
    models = [load_model(*pair) for pair in zip(folders, configs, strict=True)]
    return list(zip(configs, models, strict=True)), names[0]


def tested_set(folder: Path, cfg: CfgNode) -> str:
    """The first of ``DATASETS.TEST``; raises ZssError if there is none."""
    if not cfg.DATASETS.TEST:
        raise ZssError(
            f"{folder}: DATASETS.TEST of the run is empty; name a data set with "
            "--opts DATASETS.TEST \"('NAME',)\""
        )
    return cfg.DATASETS.TEST[0]


def records_of(dataset: str) -> list[dict]:
    """Images and masks of a registered data set; raises ZssError where there is none."""
    if dataset not in DatasetCatalog.list():
        raise ZssError(f"{dataset} is not registered; name one such as zss_mini_dev")
    return DatasetCatalog.get(dataset)


def choose(records: Sequence[dict], number: int, unseen_ids: Sequence[int]) -> list[dict]:
    """The first records that show something unseen, then others, ``number`` in all."""
    with_unseen = (
        r for r in records if np.isin(read_mask(r["sem_seg_file_name"]), unseen_ids).any()
    )
    chosen = [record for _, record in zip(range(number), with_unseen, strict=False)]
    others = (record for record in records if record not in chosen)
    return chosen + [record for _, record in zip(range(number - len(chosen)), others, strict=False)]


def picture_parser(description: str | None, *, images: int, output: str) -> Parser:
    """The command line of a picture of runs; ``images`` and ``output`` are its defaults."""
    parser = Parser(description)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--images", type=whole(1, MAX_IMAGES), default=images, metavar="N", help="photos to show"
    )
    parser.add_argument("--output", type=Path, default=Path(output), metavar="FILE")
    parser.add_opts()
    return parser


def picture_command(
    args: argparse.Namespace, draw: Callable[[Sequence[Path], int, Sequence[str]], Figure]
) -> int:
    """Do what a command line of `picture_parser` says; returns the exit status.

    Args:
        draw: folders of runs, number of images, config keys and values -> figure.
    """
    check_output(args.output)
    picture = png(draw(args.runs, args.images, args.opts))
    write_atomic(args.output, lambda path: path.write_bytes(picture))
    print(f"picture written to {args.output}")
    return 0
