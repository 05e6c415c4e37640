"""fvcore's schedules (functions of the relative progress) as torch schedulers."""

from __future__ import annotations

from typing import Any

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule whose first part is replaced by a warm-up."""

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        """
        Args:
            warmup_factor: first value, as a multiple of the schedule's own first value.
            warmup_length: fraction of training, in [0, 1].
            warmup_method: "linear" rises to where the schedule continues, "constant" stays.
            rescale_interval: squeeze the whole schedule into what is left after the warm-up, which
                otherwise hides its beginning.
        """
        first = warmup_factor * scheduler(0.0)
        if warmup_method not in ("linear", "constant"):
            raise ValueError(f"unknown warmup_method {warmup_method!r}: use 'linear' or 'constant'")
        last = first
        if warmup_method == "linear":
            last = scheduler(0.0 if rescale_interval else warmup_length)
        super().__init__(
            [LinearParamScheduler(first, last), scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets each group's rate to its initial rate times one schedule; step once per iteration."""

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        """``multiplier`` gets the progress iteration / ``max_iter``; -1 starts before the first."""
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be a fvcore ParamScheduler, got {multiplier!r}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Initial rates and the iteration; the schedule itself comes from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        """Rate of each group at the current iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [factor * base_lr for base_lr in self.base_lrs]
