"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import WarmupParamScheduler, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

WARMUP_METHODS = ("linear", "linear_factor", "constant")


class PolyWithFloor(ParamScheduler):
    """floor + (1 - floor) * (1 - t) ** power, as a multiple of the initial learning rate."""

    def __init__(self, power: float, floor: float):
        self.power = power
        self.floor = floor

    def __call__(self, where: float) -> float:
        return self.floor + (1 - self.floor) * (1 - where) ** self.power


class FactorWarmup(ParamScheduler):
    """Another schedule times a factor that rises linearly from ``factor`` to 1.

    ``length`` is how long that takes, as a fraction of training; it may be longer than training.
    """

    def __init__(self, schedule: ParamScheduler, factor: float, length: float):
        self.schedule = schedule
        self.factor = factor
        self.length = length

    def __call__(self, where: float) -> float:
        rise = where / self.length if where < self.length else 1.0
        return self.schedule(where) * (self.factor + (1 - self.factor) * rise)


class GroupwiseLR(LRScheduler):
    """Gives each parameter group a schedule of its own; step once per iteration.

    Its state is that of Detectron2's ``LRMultiplier``, which has one schedule for all groups, and a
    mark; the schedules themselves come from the config.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], ParamScheduler],
        max_iter: int,
    ):
        """
        Args:
            schedule: initial learning rate of a group -> multiples of it over 0..1.
            max_iter: iterations of the whole training.
        """
        self._schedule = schedule
        self._max_iter = max_iter
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        where = self.last_epoch / self._max_iter
        return [rate * self._schedule(rate)(where) for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Initial rates and the iteration."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch, "groupwise": True}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the iteration; initial rates are those of the config.

        Also takes the state of an ``LRMultiplier``, with a warning if its rates differed.
        """
        self.last_epoch = state_dict["last_epoch"]
        base_lr = self.optimizer.defaults["lr"]
        if "groupwise" not in state_dict and any(r != base_lr for r in state_dict["base_lrs"]):
            logger.warning(
                "This run began with an earlier version, in which SOLVER.LR_FACTORS applied to "
                "SOLVER.MIN_LR too; from here on rates fall to MIN_LR itself"
            )

    def apply(self) -> None:
        """Set the rates of the iteration that comes next."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


def parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Qualified names in ``model`` of what the optimizer updates, in its order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]


def resumed_state(
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    saved: Mapping[str, Any],
    saved_names: Sequence[str] | None,
) -> dict[str, Any]:
    """What ``optimizer`` is to load: its own rates and decays with the moments of a saved state.

    Args:
        names: as `parameter_names` gives them.
        saved: state dict of an optimizer whose groups may be others.
        saved_names: names of its parameters; None: the same in the same order.

    Raises:
        ZssError: without the names, another number of parameters.
    """
    own = optimizer.state_dict()
    numbers, saved_numbers = (
        [number for group in state["param_groups"] for number in group["params"]]
        for state in (own, saved)
    )
    if saved_names is None:
        if len(saved_numbers) != len(names):
            raise ZssError(
                f"the checkpoint has the optimizer state of {len(saved_numbers)} parameters, this "
                f"model trains {len(names)}; give the settings of its training"
            )
        saved_names = names
    moments = {
        name: saved["state"][number]
        for name, number in zip(saved_names, saved_numbers, strict=True)
        if number in saved["state"]
    }
    state = {n: moments[name] for n, name in zip(numbers, names, strict=True) if name in moments}
    return {"state": state, "param_groups": own["param_groups"]}


def lr_factor(factors: Sequence[tuple[str, float]]) -> Callable[[str], float]:
    """Map a qualified parameter name to the factor of its longest matching name prefix, else 1."""
    by_length = sorted(factors, key=lambda item: len(item[0]), reverse=True)

    def factor(name: str) -> float:
        return next((f for prefix, f in by_length if name.startswith(prefix)), 1.0)

    return factor


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over the parameters that learn, with `SOLVER.LR_FACTORS` and no decay on norms.

    It is fused if all of them are on a GPU.

    Raises:
        ZssError: nothing learns, or a factor is for nothing.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ZssError(f"{cfg.MODEL.META_ARCHITECTURE} has nothing to train; use --eval-only")
    factors = [list(item) for item in cfg.SOLVER.LR_FACTORS]
    useful = [item for item in factors if any(name.startswith(item[0]) for name in names)]
    for prefix, _ in factors:
        if prefix not in [item[0] for item in useful]:
            raise ZssError(
                f"SOLVER.LR_FACTORS names {prefix!r}, but no trained parameter starts so; they "
                f"start with {', '.join(sorted({name.split('.')[0] for name in names}))}; set "
                f'SOLVER.LR_FACTORS "{useful}"'
            )
    params = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        lr_factor_func=lr_factor(cfg.SOLVER.LR_FACTORS),
    )
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    on_gpu = all(p.device.type == "cuda" for group in params for p in group["params"])
    return optimizer(
        params,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        # All parameters in few kernels; elsewhere it is torch that chooses.
        fused=True if on_gpu else None,
    )


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Polynomial decay of every group to the one `SOLVER.MIN_LR`, with warm-up.

    Raises:
        ZssError: another schedule or warm-up; a group that would not start above its end.
    """
    solver = cfg.SOLVER
    for key, value, known in (
        ("LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, ("WarmupPolyLR",)),
        ("WARMUP_METHOD", solver.WARMUP_METHOD, WARMUP_METHODS),
    ):
        if value not in known:
            raise ZssError(f"SOLVER.{key} is {value!r}; use {', '.join(map(repr, known))}")
    lowest = min(group["lr"] for group in optimizer.param_groups)
    if lowest <= 0 or lowest < solver.MIN_LR:
        raise ZssError(
            f"SOLVER.BASE_LR {solver.BASE_LR:g} and LR_FACTORS start some parameters at the "
            f"learning rate {lowest:g}; all must start above 0 and not below SOLVER.MIN_LR "
            f"({solver.MIN_LR:g}): raise the rate or the factor, or lower MIN_LR"
        )
    length = solver.WARMUP_ITERS / solver.MAX_ITER
    if length > 1 and solver.WARMUP_METHOD != "linear_factor":
        logger.warning(
            "SOLVER.WARMUP_ITERS is %d and MAX_ITER %d: the learning rate never reaches BASE_LR",
            solver.WARMUP_ITERS,
            solver.MAX_ITER,
        )

    def schedule(rate: float) -> ParamScheduler:
        decay = PolyWithFloor(solver.POLY_POWER, solver.MIN_LR / rate)
        if solver.WARMUP_METHOD == "linear_factor":
            return FactorWarmup(decay, solver.WARMUP_FACTOR, length)
        return WarmupParamScheduler(
            decay, solver.WARMUP_FACTOR, min(length, 1.0), solver.WARMUP_METHOD
        )

    return GroupwiseLR(optimizer, schedule, max_iter=solver.MAX_ITER)
