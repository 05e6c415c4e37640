"""The usual hooks. "Every N iterations" counts from iteration 0, also after a resume."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from time import perf_counter
from typing import Any

import torch
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.solver import LRMultiplier
from detectron2.solver import LRScheduler as _LRScheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler

_logger = logging.getLogger(__name__)
_MOMENTS = ("before_train", "before_step", "after_step", "after_train")


class CallbackHook(HookBase):
    """Calls functions of the trainer: before_train=, before_step=, after_step=, after_train=."""

    def __init__(self, **functions: Callable[[TrainerBase], None] | None) -> None:
        for moment, function in functions.items():
            if moment not in _MOMENTS:
                raise TypeError(f"no moment {moment!r}; there are {', '.join(_MOMENTS)}")
            if function is not None:
                setattr(self, moment, lambda function=function: function(self.trainer))


class IterationTimer(HookBase):
    """Records "time" (seconds per step) and logs a summary; to be registered first.

    Args:
        warmup_iter: first iterations that do not count.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter

    def before_train(self) -> None:
        self._start = perf_counter()
        self._steps: list[float] = []

    def before_step(self) -> None:
        self._step_start = perf_counter()

    def after_step(self) -> None:
        done = self.trainer.iter - self.trainer.start_iter + 1
        if done < self._warmup_iter:
            self._start = perf_counter()
            return
        self._steps.append(perf_counter() - self._step_start)
        self.trainer.storage.put_scalar("time", self._steps[-1])

    def after_train(self) -> None:
        total, steps = perf_counter() - self._start, sum(self._steps)
        if self._steps:
            _logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                *(len(self._steps), timedelta(seconds=int(steps)), steps / len(self._steps)),
            )
        _logger.info(
            "Total training time: %s (%s on hooks)",
            *(timedelta(seconds=int(total)), timedelta(seconds=int(total - steps))),
        )


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


class _EvalScheduled(HookBase):
    """Acts every ``period`` iterations (0: never) and after a training that did not fail."""

    def __init__(self, period: int, at_end: bool = True) -> None:
        self._period = period
        self._at_end = at_end

    def _act(self) -> None:
        raise NotImplementedError

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._act()

    def after_train(self) -> None:
        if self._at_end and self.trainer.iter >= self.trainer.max_iter:
            self._act()


class EvalHook(_EvalScheduled):
    """Records the results of an evaluation; on all processes or none, as they synchronise.

    Args:
        eval_period: iterations; 0: only at the end.
        eval_function: returns a (nested) dict of numbers; its keys are joined with "/".
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        super().__init__(eval_period, eval_after_train)
        self._func = eval_function

    def _act(self) -> None:
        for key, value in flatten_results_dict(self._func() or {}).items():
            try:
                self.trainer.storage.put_scalar(key, float(value), smoothing_hint=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"evaluation result {key} = {value!r} is no number") from error
        comm.synchronize()


class BestCheckpointer(_EvalScheduled):
    """Saves the model whenever a metric is the best so far; register it after the ``EvalHook``.

    Args:
        eval_period: the one of the ``EvalHook``.
        val_metric: flat key, for instance "sem_seg/mIoU".
        mode: "max" or "min".
        file_prefix: name of the file, without extension.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        super().__init__(eval_period)
        assert mode in ("max", "min"), f"mode is 'max' or 'min', not {mode!r}"
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._sign = 1 if mode == "max" else -1
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _act(self) -> None:
        metric, best = self._val_metric, self.best_metric
        if metric not in self.trainer.storage.latest():
            _logger.warning("No metric %s: the best model is not saved", metric)
            return
        value, iteration = self.trainer.storage.latest()[metric]
        if not math.isfinite(value) or (best is not None and self._sign * (value - best) <= 0):
            _logger.info("%s = %.5f is no better than %s", metric, value, best)
            return
        self.best_metric, self.best_iter = value, iteration
        self._checkpointer.save(self._file_prefix, iteration=iteration)
        _logger.info("Saved the best model: %s = %.5f", metric, value)


class LRScheduler(HookBase):
    """Steps a learning rate schedule after every iteration and records "lr".

    Args:
        scheduler: torch's, or fvcore's as a factor of the base rate; None (as for the optimizer):
            the trainer's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: _LRScheduler | ParamScheduler | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> _LRScheduler | ParamScheduler:
        """The schedule in use."""
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            last = self.trainer.iter - 1
            self._scheduler = LRMultiplier(
                self._optimizer, self.scheduler, self.trainer.max_iter, last_iter=last
            )
        self._shown_group = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """Group whose rate stands for all: the largest; the most common rate if all have size 1."""
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        rate = self._optimizer.param_groups[self._shown_group]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict() if isinstance(self.scheduler, _LRScheduler) else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        if isinstance(self.scheduler, _LRScheduler):
            self.scheduler.load_state_dict(state_dict)
