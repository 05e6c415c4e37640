"""The usual hooks. "Every N iterations" counts from iteration 0, also after a resume."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from detectron2.engine.train_loop import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.timer import Timer

_logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Records "time" (seconds per step) from the third step on; to be registered first."""

    def __init__(self) -> None:
        self._total, self._step = Timer(), Timer()

    def before_train(self) -> None:
        self._total = Timer()

    def before_step(self) -> None:
        self._step = Timer()

    def after_step(self) -> None:
        if self.trainer.iter >= self.trainer.start_iter + 2:
            self.trainer.storage.put_scalar("time", self._step.seconds())

    def after_train(self) -> None:
        total = timedelta(seconds=int(self._total.seconds()))
        done = self.trainer.iter - self.trainer.start_iter
        _logger.info("Total training time: %s for %d iterations", total, done)


class PeriodicWriter(HookBase):
    """Lets writers write every ``period`` iterations and at the end, then closes them."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's ``PeriodicCheckpointer``: model_0000099.pth..., and model_final.pth at the end."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class EvalHook(HookBase):
    """Records the results of an evaluation; on all processes or none, as they synchronise.

    ``eval_function`` returns a (nested) dict of numbers, whose keys are joined with "/". It is
    called every ``eval_period`` iterations (0: never) and after a training that did not fail.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Mapping[str, Any] | None]
    ) -> None:
        self._period = eval_period
        self._func = eval_function

    def _evaluate(self) -> None:
        for key, value in flatten_results_dict(self._func() or {}).items():
            try:
                self.trainer.storage.put_scalar(key, float(value), smoothing_hint=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"evaluation result {key} = {value!r} is no number") from error
        comm.synchronize()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._evaluate()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()


class LRScheduler(HookBase):
    """Steps the trainer's schedule and records "lr", that of the largest group."""

    def __init__(self) -> None: ...  # refuses upstream's arguments with the hint

    def after_step(self) -> None:
        groups = self.trainer.optimizer.param_groups
        rate = max(groups, key=lambda group: len(group["params"]))["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.trainer.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.scheduler.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.trainer.scheduler.load_state_dict(state_dict)
