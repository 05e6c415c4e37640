"""Train or evaluate any method of zss_d2.

    zss train ldvc_voc --num-gpus 8
    zss train ldvc_voc --num-gpus 8 --resume
    zss train configs/ldvc_voc.yaml --eval-only MODEL.WEIGHTS model.pth
    torchrun --nproc-per-node 8 -m zss_d2.train --config-file ldvc_voc

The config is a file, or the name of one of the project's. ``train_net.py`` does the same.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zss_d2.errors import command

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def work(cfg: CfgNode, args: argparse.Namespace) -> object:
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


def start(argv: Sequence[str] | None = None, usage: str | None = __doc__) -> int:
    """All processes of the run; imports take seconds, and end with one line on Ctrl-C too.

    Args:
        argv: None: arguments of the process.
        usage: what ``--help`` ends with.
    """
    if status := load_engine():
        return status
    from zss_d2.engine import argument_parser, parse_arguments, run

    run(work, parse_arguments(argument_parser(epilog=usage), argv))
    return 0


def main(argv: Sequence[str]) -> int:
    """``zss train``: the config may come first, without ``--config-file``."""
    named = argv and not argv[0].startswith("-")
    return start(["--config-file", *argv] if named else argv)


@command
def load_engine() -> int:
    """Import what a run needs; later errors are for `run` to tell, or are this project's own."""
    import zss_d2.engine  # noqa: F401

    return 0


def wait_quietly() -> None:
    """Let Ctrl-C just end one of several processes until it listens; the first one says so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__mp_main__":
    wait_quietly()
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
