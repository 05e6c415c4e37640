"""Self-training in a run: the iteration that it depends on, and what it did, for the metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from zss_d2.engine.hooks import OF_A_LINE
from zss_d2.errors import ZssError

if TYPE_CHECKING:
    from zss_d2.modeling.segmentor import ZeroShotSegmentor

logger = logging.getLogger(__name__)

# Classes that metrics have a line of their own for, at most.
_NAMES = 32


def require_possible(cfg: CfgNode, model: nn.Module) -> None:
    """Raise `ZssError` if a training under this config would never, or too early, train itself."""
    settings = cfg.ZERO_SHOT.SELF_TRAINING
    if getattr(model, "self_training", None) is None:
        return
    if settings.START >= cfg.SOLVER.MAX_ITER:
        raise ZssError(
            f"ZERO_SHOT.SELF_TRAINING.START is {settings.START}, but SOLVER.MAX_ITER is "
            f"{cfg.SOLVER.MAX_ITER}: there would be no pseudo labels; lower START, or set "
            "ZERO_SHOT.SETTING inductive"
        )
    if cfg.MODEL.COMPILE and settings.SOURCE in ("ema", "frozen"):
        raise ZssError(
            f"MODEL.COMPILE is {cfg.MODEL.COMPILE!r} and ZERO_SHOT.SELF_TRAINING.SOURCE "
            f"{settings.SOURCE!r}, whose weights a compiled model cannot be given; turn it off"
        )
    if settings.SOURCE == "offline" and not settings.FOLDER:
        raise ZssError(
            "ZERO_SHOT.SELF_TRAINING.SOURCE is 'offline' and FOLDER empty; give the --output of "
            "zss predict on the training images"
        )
    if settings.START == 0 and not cfg.MODEL.WEIGHTS and settings.SOURCE != "offline":
        raise ZssError(
            "ZERO_SHOT.SELF_TRAINING.START is 0 and MODEL.WEIGHTS empty: pseudo labels would be "
            "those of an untrained model; give inductive weights, or a START such as half of "
            f"SOLVER.MAX_ITER ({cfg.SOLVER.MAX_ITER // 2})"
        )


class SelfTrainingSteps(HookBase):
    """Tells the model its iteration, and records what share of the pixels got pseudo labels.

    ``pseudo_coverage``: of the pixels without a label; ``pseudo_<class>``: of the pseudo labels,
    those of an unseen class; ``pseudo_seen``: those of seen ones. All are of the iterations since
    the last line and of all processes. The device is waited for once a line.

    Stands before the checkpoints, which then hold counters that begin anew.
    """

    def __init__(self, model: ZeroShotSegmentor, period: int):
        """
        Args:
            model: not wrapped for several processes.
            period: iterations between lines.
        """
        self.model = model
        self.part = model.self_training
        self.period = period

    def before_step(self) -> None:
        before, start = self.part.active, self.part.settings.start
        self.part.begin(self.model, self.trainer.iter)
        if self.trainer.iter == start or (self.part.active and not before):
            names = self.model.train_classes[len(self.model.labelled_classes) :]
            logger.info(
                "Self-training since iteration %d: %r pixels get pseudo labels by %r scores; the "
                "names of %d unseen classes are in the losses",
                *(start, self.part.settings.pixels, self.part.settings.source, len(names)),
            )

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.part.active and (done % self.period == 0 or done == self.trainer.max_iter):
            for name, value in self._shares():
                self.trainer.storage.put_scalar(OF_A_LINE + name, value, smoothing_hint=False)

    def _shares(self) -> Iterator[tuple[str, float]]:
        pixels, *counts = self.part.taken_counts()
        number = sum(counts)
        yield "coverage", number / max(pixels, 1)
        seen = len(self.model.labelled_classes)
        yield "seen", sum(counts[:seen]) / max(number, 1)
        names = self.model.train_classes[seen:]
        for name, count in list(zip(names, counts[seen:], strict=True))[:_NAMES]:
            yield name, count / max(number, 1)
