"""One iteration of a training: the batch, whole or in parts, and one step of the optimizer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from zss_d2.modeling.measured import Measured, collect_measures


class TrainingStep(SimpleTrainer):
    """Detectron2's step, with gradients that are added up over the parts of a batch.

    Loss and gradient are the means of those of the parts. They equal those of the whole batch where
    its loss is a mean over images, or over something of which every part has as much; and but for
    what looks at the batch as a whole, as batch norm does.

    Its metrics, and the error for a loss that is not finite, are Detectron2's.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        parts: int = 1,
        amp: bool = False,
    ):
        """
        Args:
            model: a batch -> loss scalars, by name.
            data_loader: endless; each of its batches is a part.
            parts: of the batch that a step of the optimizer sees.
            amp: compute in float16 where that is safe, with scaled gradients.
        """
        super().__init__(model, data_loader, optimizer)
        self.parts = parts
        self.amp = amp
        self._device = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self._device, enabled=amp)

    def run_step(self) -> None:
        """Forward and backward for every part, record, update.

        Raises:
            FloatingPointError: the sum of the losses is not finite; the update is not made.
        """
        assert self.model.training, "the model was left in evaluation mode"
        self.optimizer.zero_grad()
        losses: dict[str, Tensor] = {}
        waited = 0.0
        with collect_measures() as measured:
            for number in range(self.parts):
                start = time.perf_counter()
                batch = next(self._data_loader_iter)
                waited += time.perf_counter() - start
                with self._processes_exchange(number == self.parts - 1):
                    for name, loss in self._backward(batch).items():
                        losses[name] = losses[name] + loss if name in losses else loss
        self._write_metrics(losses, waited)
        self._write_measured(measured)
        # Before clipping, which the optimizer's step may begin with.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _backward(self, batch: Any) -> dict[str, Tensor]:
        """Add the gradients of one part; returns its share of the losses, by name."""
        half = torch.autocast(self._device, torch.float16) if self.amp else nullcontext()
        with half:
            losses = {name: loss / self.parts for name, loss in self.model(batch).items()}
            total = sum(losses.values())
        self.grad_scaler.scale(total).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _write_measured(self, measured: Measured) -> None:
        """Record what the model has measured, the mean over parts and processes."""
        if not measured:
            return
        means = torch.stack([torch.stack(values).mean() for values in measured.values()]).tolist()
        gathered = comm.gather(dict(zip(measured, means, strict=True)))
        if comm.is_main_process():
            scalars = {n: sum(x[n] for x in gathered) / len(gathered) for n in measured}
            get_event_storage().put_scalars(cur_iter=self.iter, **scalars)

    def _processes_exchange(self, now: bool) -> AbstractContextManager:
        """Several processes average the gradients once, with the last part."""
        no_sync = getattr(self.model, "no_sync", None)
        return nullcontext() if now or no_sync is None else no_sync()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return state | {"grad_scaler": self.grad_scaler.state_dict()} if self.amp else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`; a run that had no `amp` begins with a scale of its own."""
        super().load_state_dict(state_dict)
        if self.amp and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
