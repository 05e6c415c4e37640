"""Optimizers and schedules from the config."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: type[Optimizer]) -> type[Optimizer]:
    """``optimizer``, or a subclass that clips each parameter's gradient before every step.

    As ``SOLVER.CLIP_GRADIENTS`` says; ValueError for an unknown type. AMP unscales before that.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return optimizer
    if clip.CLIP_TYPE not in ("value", "norm"):
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {clip.CLIP_TYPE!r}: use value or norm")

    class WithGradientClip(optimizer):
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            for parameter in (p for group in self.param_groups for p in group["params"]):
                if parameter.grad is None:
                    continue
                if clip.CLIP_TYPE == "value":
                    nn.utils.clip_grad_value_(parameter, clip.CLIP_VALUE)
                else:
                    nn.utils.clip_grad_norm_(parameter, clip.CLIP_VALUE, clip.NORM_TYPE)
            return super().step(closure)

    return WithGradientClip


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, each parameter once, by equal hyperparameters.

    What stays None is left to the optimizer. ``weight_decay_norm`` is for normalization layers,
    ``lr_factor_func`` maps a full parameter name to a factor on ``base_lr``, and ``overrides`` the
    last part of a name to hyperparameters, which win. ValueError for a factor without ``base_lr``.
    """
    if base_lr is None and lr_factor_func is not None:
        raise ValueError("lr_factor_func needs base_lr")
    groups: dict[tuple[tuple[str, float], ...], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            chosen = {"lr": base_lr, "weight_decay": weight_decay}
            if weight_decay_norm is not None and isinstance(module, _NORMS):
                chosen["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                chosen["lr"] = base_lr * lr_factor_func(f"{module_name}.{name}")
            chosen |= (overrides or {}).get(name, {})
            key = tuple((option, value) for option, value in chosen.items() if value is not None)
            groups.setdefault(key, []).append(parameter)
    return [{**dict(key), "params": members} for key, members in groups.items()]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SGD over the trainable parameters, as ``SOLVER`` says."""
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model, base_lr=solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
    )
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule whose first part is replaced by a warm-up.

    Args:
        warmup_factor: first value, as a multiple of the schedule's own first value.
        warmup_length: fraction of training, in [0, 1].
        warmup_method: "linear" rises to where the schedule continues, "constant" stays.
        rescale_interval: squeeze the whole schedule into what is left after the warm-up, which
            otherwise hides its beginning.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        if warmup_method not in ("linear", "constant"):
            raise ValueError(f"unknown warmup_method {warmup_method!r}: use 'linear' or 'constant'")
        first = last = warmup_factor * scheduler(0.0)
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
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be a fvcore ParamScheduler, got {multiplier!r}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Initial rates and the iteration; the schedule itself comes from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [factor * base_lr for base_lr in self.base_lrs]


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRMultiplier:
    """WarmupMultiStepLR or WarmupCosineLR, as ``SOLVER`` says; ValueError for another name."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]
        values = [solver.GAMMA**decays for decays in range(len(steps) + 1)]
        schedule = MultiStepParamScheduler(values, milestones=steps, num_updates=solver.MAX_ITER)
    elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        schedule = CosineParamScheduler(1, solver.BASE_LR_END / solver.BASE_LR)
    else:
        raise ValueError(f"unknown SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME!r}")
    warmup_length = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    schedule = WarmupParamScheduler(
        *(schedule, solver.WARMUP_FACTOR, warmup_length),
        *(solver.WARMUP_METHOD, solver.RESCALE_INTERVAL),
    )
    return LRMultiplier(optimizer, schedule, max_iter=solver.MAX_ITER)
