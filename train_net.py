#!/usr/bin/env python
"""Train or evaluate any method of zss_d2.

python train_net.py --config-file configs/ldvc_voc.yaml --num-gpus 8
python train_net.py --config-file configs/ldvc_voc.yaml --eval-only MODEL.WEIGHTS model.pth
"""

from __future__ import annotations

import argparse

import zss_d2  # noqa: F401  registers data sets and methods

# isort: split
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils.logger import setup_logger

from zss_d2.engine import ZeroShotTrainer, evaluate, run


def main(cfg: CfgNode, args: argparse.Namespace) -> object:
    """One process of the run."""
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, name="zss_d2", abbrev_name="zss")
    if args.eval_only or cfg.SOLVER.MAX_ITER == 0:
        return evaluate(cfg, resume=args.resume)
    trainer = ZeroShotTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    run(main, default_argument_parser(epilog=__doc__).parse_args())
