"""Models of finished runs, and pictures to show them on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from torch import nn

from zss_d2.data.files import read_mask, write_atomic
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.errors import ZssError
from zss_d2.evaluation.drawing import png
from zss_d2.evaluation.run_files import check_different, custom_descriptions


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
    if descriptions := custom_descriptions(folder):
        overrides = ("DATASETS.CUSTOM", repr(tuple(map(str, descriptions))), *overrides)
    cfg = load_config(argparse.Namespace(config_file=str(config_file), opts=list(overrides)))
    model = ZeroShotTrainer.build_model(cfg).eval()
    checkpointer = ZeroShotCheckpointer(model, str(folder))
    trained = checkpointer.has_checkpoint()
    checkpointer.load(checkpointer.get_checkpoint_file() if trained else cfg.MODEL.WEIGHTS)
    return cfg, model


def load_runs(folders: Sequence[Path]) -> tuple[list[tuple[CfgNode, nn.Module]], str]:
    """`load_run` of every folder, and the (first) data set that all of them were tested on.

    Raises:
        ZssError: a folder is no run or given twice, or they were tested on different data sets.
    """
    check_different(folders)
    runs, files = [], []
    for folder in folders:
        cfg, model = load_run(folder)
        runs.append((cfg, model))
        names = sorted({cfg.DATASETS.TEST[0] for cfg, _ in runs})
        if len(names) > 1:
            raise ZssError(f"the runs were tested on different data sets: {', '.join(names)}")
        # Data sets of one's own may share a name, which then stands for those of the last run.
        files.append([record["file_name"] for record in DatasetCatalog.get(names[0])])
        if files[-1] != files[0]:
            raise ZssError(
                f"{names[0]} of {folder} and that of {folders[0]} are different data sets of one "
                "name; show the runs in pictures of their own"
            )
    return runs, names[0]


def choose(records: Sequence[dict], number: int, unseen_ids: Sequence[int]) -> list[dict]:
    """The first records that show something unseen, then others, ``number`` in all."""
    with_unseen = (
        r for r in records if np.isin(read_mask(r["sem_seg_file_name"]), unseen_ids).any()
    )
    chosen = [record for _, record in zip(range(number), with_unseen, strict=False)]
    others = (record for record in records if record not in chosen)
    return chosen + [record for _, record in zip(range(number - len(chosen)), others, strict=False)]


def picture_command(
    description: str,
    draw: Callable[[Sequence[Path], int], Figure],
    *,
    images: int,
    output: str,
    argv: Sequence[str] | None,
) -> int:
    """Command line of a picture of runs; returns the exit status.

    Args:
        description: shown by ``--help``.
        draw: folders of runs and number of images -> figure.
        images, output: defaults of ``--images`` and ``--output``.
        argv: arguments; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--images", type=int, default=images, metavar="N", help="photos to show")
    parser.add_argument("--output", type=Path, default=Path(output), metavar="FILE")
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error("--images must be 1 or more")
    picture = png(draw(args.runs, args.images))
    write_atomic(args.output, lambda path: path.write_bytes(picture))
    print(f"picture written to {args.output}")
    return 0
