"""Optimizer and learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from zss_d2.errors import ZssError


class PolyWithFloor(ParamScheduler):
    """floor + (1 - floor) * (1 - t) ** power, as a multiple of the base learning rate."""

    def __init__(self, power: float, floor: float):
        self.power = power
        self.floor = floor

    def __call__(self, where: float) -> float:
        return self.floor + (1 - self.floor) * (1 - where) ** self.power


def lr_factor(factors: Sequence[tuple[str, float]]) -> Callable[[str], float]:
    """Map a qualified parameter name to the factor of its longest matching name prefix, else 1."""
    by_length = sorted(factors, key=lambda item: len(item[0]), reverse=True)

    def factor(name: str) -> float:
        return next((f for prefix, f in by_length if name.startswith(prefix)), 1.0)

    return factor


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over the parameters that learn, with `SOLVER.LR_FACTORS` and no decay on norms."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ZssError(f"{cfg.MODEL.META_ARCHITECTURE} has nothing to train; use --eval-only")
    for prefix, _ in cfg.SOLVER.LR_FACTORS:
        if not any(name.startswith(prefix) for name in names):
            raise ZssError(
                f"SOLVER.LR_FACTORS names {prefix!r}, but no trained parameter starts so; they "
                f"start with {', '.join(sorted({name.split('.')[0] for name in names}))}"
            )
    params = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        lr_factor_func=lr_factor(cfg.SOLVER.LR_FACTORS),
    )
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    return optimizer(params, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Polynomial decay to `SOLVER.MIN_LR` with warm-up, stepped every iteration."""
    if cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupPolyLR":
        raise ZssError(
            f"SOLVER.LR_SCHEDULER_NAME is {cfg.SOLVER.LR_SCHEDULER_NAME!r}; "
            "use 'WarmupPolyLR', the only one"
        )
    schedule = WarmupParamScheduler(
        PolyWithFloor(cfg.SOLVER.POLY_POWER, cfg.SOLVER.MIN_LR / cfg.SOLVER.BASE_LR),
        cfg.SOLVER.WARMUP_FACTOR,
        min(cfg.SOLVER.WARMUP_ITERS / cfg.SOLVER.MAX_ITER, 1.0),
        cfg.SOLVER.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, schedule, max_iter=cfg.SOLVER.MAX_ITER)
