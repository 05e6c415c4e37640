#!/usr/bin/env python
"""Train or evaluate any method of zss_d2.

python train_net.py --config-file configs/ldvc_voc.yaml --num-gpus 8
python train_net.py --config-file configs/ldvc_voc.yaml --num-gpus 8 --resume
python train_net.py --config-file configs/ldvc_voc.yaml --eval-only MODEL.WEIGHTS model.pth
torchrun --nproc-per-node 8 train_net.py --config-file configs/ldvc_voc.yaml
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

import zss_d2  # noqa: F401  registers data sets and methods
from zss_d2.errors import command

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def main(cfg: CfgNode, args: argparse.Namespace) -> object:
    """One process of the run."""
    from zss_d2.data.spec.requirements import require_datasets
    from zss_d2.engine import ZeroShotTrainer, evaluate, set_up

    testing = args.eval_only or cfg.SOLVER.MAX_ITER == 0
    require_datasets(cfg, train=not testing)
    set_up(cfg, args)
    if testing:
        return evaluate(cfg, resume=args.resume)
    trainer = ZeroShotTrainer(cfg)
    trainer.resume_or_load(resume=args.resume, allow_changes=args.allow_changes)
    return trainer.train()


def start() -> int:
    """All processes of the run; imports take seconds, and end with one line on Ctrl-C too."""
    if status := load_engine():
        return status
    from zss_d2.engine import argument_parser, parse_arguments, run

    run(main, parse_arguments(argument_parser(epilog=__doc__)))
    return 0


@command
def load_engine() -> int:
    """Import what a run needs; later errors are for `run` to tell, or are this project's own."""
    import zss_d2.engine  # noqa: F401

    return 0


if __name__ == "__mp_main__":
    # One of several processes; until it listens, Ctrl-C just ends it, and the first one says so.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if __name__ == "__main__":
    sys.exit(start())
