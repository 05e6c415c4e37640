"""Everything goes into OUTPUT_DIR/log.txt; what a person wants to read goes to the screen too."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from zss_d2.engine.processes.failures import as_user_error
from zss_d2.errors import user_message
from zss_d2.modeling.self_training.settings import LEAK_IN_WORDS, SelfTrainingSettings

logger = logging.getLogger(__name__)


def set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Detectron2's ``default_setup``; environment and whole config only go into the file.

    Ranks above 0 write files of their own, ``log.txt.rank1`` and so on.
    """
    rank = comm.get_rank()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    with file_only():
        default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="zss_d2", abbrev_name="zss")
    for name in ("detectron2", "fvcore", "zss_d2"):
        for handler in logging.getLogger(name).handlers:
            handler.handleError = _say_once
    logging.getLogger("detectron2.engine.train_loop").addFilter(_without_traceback_of_bad_input)
    logger.info("%s", summary(cfg, testing=args.eval_only))


@contextmanager
def file_only() -> Iterator[None]:
    """Keep Detectron2's ordinary messages off the screen."""
    screens = [
        (handler, handler.level)
        for handler in logging.getLogger("detectron2").handlers
        if not _writes_a_file(handler)
    ]
    for handler, _ in screens:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in screens:
            handler.setLevel(level)


def _writes_a_file(handler: logging.Handler) -> bool:
    """Whether it is no screen; upstream's handlers of files are of the same class."""
    return Path(getattr(getattr(handler, "stream", None), "name", "")).is_file()


def summary(cfg: CfgNode, testing: bool) -> str:
    """One line for what a run is."""
    tests = ", ".join(cfg.DATASETS.TEST) or "nothing"
    processes = comm.get_world_size()
    where = cfg.MODEL.DEVICE + (f" x {processes} processes" if processes > 1 else "")
    rest = f"log and config in {cfg.OUTPUT_DIR}"
    method = cfg.MODEL.META_ARCHITECTURE
    if testing:
        return f"{method}, test on {tests}, {where}; {rest}"
    solver, period = cfg.SOLVER, cfg.TEST.EVAL_PERIOD
    parts = f" in {solver.ACCUMULATE} parts" if solver.ACCUMULATE > 1 else ""
    return (
        f"{method}, {_setting(cfg)}: {solver.MAX_ITER} iterations of "
        f"{solver.IMS_PER_BATCH} images{parts} of {', '.join(cfg.DATASETS.TRAIN)}; test on {tests}"
        f"{f' every {period} iterations and' if period else ''} at the end; {where}; {rest}"
    )


def _setting(cfg: CfgNode) -> str:
    setting, training = cfg.ZERO_SHOT.SETTING, SelfTrainingSettings.from_config(cfg)
    if training is None:
        return setting
    leak = f" ({LEAK_IN_WORDS})" if training.leaky else ""
    return f"{setting}{leak}, self-training from iteration {training.start} on"


@functools.cache
def _broken(reason: str) -> None:
    print(f"warning: the log cannot be written: {reason}", file=sys.stderr)


def _say_once(record: logging.LogRecord) -> None:
    """In the place of a traceback for every line that a full disk has no room for."""
    _broken(str(sys.exc_info()[1]))


def _without_traceback_of_bad_input(record: logging.LogRecord) -> bool:
    """What a user can fix is told in one line at the end; where it was noticed does not matter."""
    error = record.exc_info[1] if record.exc_info else None
    known = as_user_error(error, Path()) if error is not None else None
    if known is not None:
        record.msg, record.args = f"Training ended: {user_message(known)}", ()
        record.exc_info, record.exc_text = None, None
    return True
