"""The loop, its hooks, and the step of an ordinary training."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

_logger = logging.getLogger(__name__)


class HookBase:
    """Something a trainer does beside its steps; ``self.trainer`` is set when it is registered.

    ``before_step`` must take next to no time, as ``IterationTimer`` leaves it out. A hook with a
    ``state_dict`` also has a ``load_state_dict``.
    """

    trainer: TrainerBase

    def before_train(self) -> None:
        """Called before the first iteration."""

    def after_train(self) -> None:
        """Called after the last iteration, and after a failure."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called between the backward pass and the update."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of this hook."""
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
                assert isinstance(hook, HookBase), hook
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
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception:
                _logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def _call_hooks(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)()

    def before_train(self) -> None:
        self._call_hooks("before_train")

    def after_train(self) -> None:
        self.storage.iter = self.iter
        self._call_hooks("after_train")

    def before_step(self) -> None:
        self.storage.iter = self.iter
        self._call_hooks("before_step")

    def after_backward(self) -> None:
        self._call_hooks("after_backward")

    def after_step(self) -> None:
        self._call_hooks("after_step")

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_step")

    def state_dict(self) -> dict[str, Any]:
        """The last iteration and the states of the hooks, by class; of two alike the first."""
        hooks: dict[str, Any] = {}
        for hook in self._hooks:
            if state := hook.state_dict():
                hooks.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter} | ({"hooks": hooks} if hooks else {})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            owners = [hook for hook in self._hooks if type(hook).__qualname__ == name]
            if owners:
                owners[0].load_state_dict(state)
            else:
                _logger.warning("No hook %s here: its saved state is ignored", name)


class SimpleTrainer(TrainerBase):
    """One model that returns losses, one optimizer, one source of data.

    Args:
        model: called with a batch; returns a scalar loss or a dict of scalars, which are summed.
        data_loader: endless iterable of batches.
        gather_metric_period: iterations between two recordings of the losses.
        zero_grad_before_forward: clear gradients before the forward pass instead of after it.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self._iterator: Iterator[Any] | None = None

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        # Late, as it starts the worker processes.
        if self._iterator is None:
            self._iterator = iter(self.data_loader)
        return self._iterator

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Drop the loader first, then build its successor."""
        del self.data_loader
        self._iterator = None
        self.data_loader = data_loader_builder()

    def run_step(self) -> None:
        """Forward, backward, record, update."""
        assert self.model.training, f"{type(self).__name__}: the model was left in eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._precision():
            losses = self.model(batch)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values())
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(total)
        self.after_backward()
        if (self.iter + 1) % self.gather_metric_period == 0:
            self.write_metrics(losses, data_time, self.iter)
        self._update()

    def _precision(self) -> AbstractContextManager:
        return nullcontext()

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self.optimizer.step()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Record losses (means over processes) and loading time (seconds, the slowest process).

        Raises:
            FloatingPointError: on rank 0, if the sum of the losses is not finite.
        """
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        values = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        gathered = comm.gather((values, data_time))
        if not comm.is_main_process():
            return
        storage.put_scalar("data_time", max(t for _, t in gathered), cur_iter=cur_iter)
        means = {name: float(np.mean([v[name] for v, _ in gathered])) for name in values}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(f"the loss at iteration {cur_iter} is not finite: {means}")
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """``SimpleTrainer`` with automatic mixed precision; needs CUDA at the first step.

    Args:
        grad_scaler: None makes one with torch's defaults.
        precision: type of the low-precision operations.
        kwargs: see ``SimpleTrainer``.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *args: Any,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, data_loader, optimizer, *args, **kwargs)
        self.precision = precision
        self.grad_scaler = grad_scaler or torch.amp.GradScaler(
            "cuda", enabled=torch.cuda.is_available()
        )

    def run_step(self) -> None:
        """One iteration; AssertionError without CUDA."""
        assert torch.cuda.is_available(), "AMPTrainer needs CUDA"
        super().run_step()

    def _precision(self) -> AbstractContextManager:
        return torch.autocast("cuda", dtype=self.precision)

    def _backward(self, loss: torch.Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
