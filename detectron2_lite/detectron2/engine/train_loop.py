"""The loop, its hooks, and the step of an ordinary training."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

_logger = logging.getLogger(__name__)


class HookBase:
    """Something a trainer does beside its steps; ``self.trainer`` is set when it is registered."""

    trainer: TrainerBase

    def before_train(self) -> None: ...
    def after_train(self) -> None: ...  # also after a failure
    def before_step(self) -> None: ...
    def after_backward(self) -> None: ...  # before the optimizer's step
    def after_step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of this hook, for its ``load_state_dict``."""
        return {}


class TrainerBase:
    """A loop over ``run_step`` from ``start_iter`` to ``max_iter``, with hooks around the steps."""

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Sequence[HookBase | None]) -> None:
        """Append hooks, which run in this order; None stands for no hook."""
        for hook in hooks:
            if hook is not None:
                # Weak, lest trainer and hooks keep each other (and the GPU memory) alive.
                hook.trainer = weakref.proxy(self)
                self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations ``start_iter`` to ``max_iter - 1``; ``after_train`` runs in any case.

        ``self.iter`` ends at ``max_iter`` only if no step failed, which hooks may check.
        """
        _logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self._call_hooks("before_train")
                while self.iter < max_iter:
                    self.storage.iter = self.iter
                    self._call_hooks("before_step")
                    self.run_step()
                    self._call_hooks("after_step")
                    self.iter += 1
            except Exception:
                _logger.exception("Exception during training:")
                raise
            finally:
                self.storage.iter = self.iter
                self._call_hooks("after_train")

    def _call_hooks(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)()

    def run_step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define run_step")

    def state_dict(self) -> dict[str, Any]:
        """The last iteration and the states of the hooks, by class; of two alike the first."""
        states = {type(hook).__qualname__: hook.state_dict() for hook in reversed(self._hooks)}
        return {
            "iteration": self.iter,
            "hooks": {name: state for name, state in states.items() if state},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Inverse of ``state_dict``; states of hooks that are not here are ignored."""
        self.iter = state_dict["iteration"]
        own = {type(hook).__qualname__: hook for hook in reversed(self._hooks)}
        for name in own.keys() & state_dict.get("hooks", {}).keys():
            own[name].load_state_dict(state_dict["hooks"][name])


class SimpleTrainer(TrainerBase):
    """One model that returns losses, one optimizer, one source of data.

    Args:
        model: called with a batch; returns a scalar loss or a dict of scalars, which are summed.
        data_loader: endless iterable of batches.
    """

    def __init__(
        self, model: nn.Module, data_loader: Iterable[Any], optimizer: torch.optim.Optimizer
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer

    @cached_property
    def _data_loader_iter(self) -> Iterator[Any]:
        return iter(self.data_loader)  # late, as it starts the worker processes

    def run_step(self) -> None:
        """Forward, backward, record, update."""
        assert self.model.training, f"{type(self).__name__}: the model was left in eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        losses = self.model(batch)
        if isinstance(losses, torch.Tensor):
            losses = {"total_loss": losses}
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._call_hooks("after_backward")
        self._write_metrics(losses, data_time)
        self.optimizer.step()

    def _write_metrics(self, losses: Mapping[str, torch.Tensor], data_time: float) -> None:
        """Record losses (means over processes) and loading time (seconds, the slowest process).

        Raises FloatingPointError, on rank 0, if the sum of the losses is not finite.
        """
        values = {name: loss.detach().cpu().item() for name, loss in losses.items()}
        gathered = comm.gather((values, data_time))
        if not comm.is_main_process():
            return
        means = {name: float(np.mean([v[name] for v, _ in gathered])) for name in values}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(f"the loss at iteration {self.iter} is not finite: {means}")
        scalars = {"data_time": max(seconds for _, seconds in gathered), "total_loss": total}
        if len(means) > 1:
            scalars |= means
        get_event_storage().put_scalars(cur_iter=self.iter, **scalars)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
