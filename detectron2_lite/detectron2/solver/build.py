"""Optimizers and schedules from the config."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[torch.optim.Optimizer]
) -> type[torch.optim.Optimizer]:
    """``optimizer``, or a subclass that clips each parameter's gradient before every step.

    As ``SOLVER.CLIP_GRADIENTS`` says; ValueError for an unknown type. AMP unscales before that.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return optimizer
    if clip.CLIP_TYPE == "value":
        limit = functools.partial(nn.utils.clip_grad_value_, clip_value=clip.CLIP_VALUE)
    elif clip.CLIP_TYPE == "norm":
        limit = functools.partial(
            nn.utils.clip_grad_norm_, max_norm=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE
        )
    else:
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {clip.CLIP_TYPE!r}: use value or norm")

    def step(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:  # torch cannot clip none by value
                    limit(parameter)
        return optimizer.step(self, closure)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"step": step})


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, each parameter once, by equal hyperparameters.

    What stays None is left to the optimizer. ``weight_decay_norm`` is for normalization layers,
    ``bias_lr_factor`` and ``weight_decay_bias`` for parameters named "bias", ``lr_factor_func``
    maps a full parameter name to a factor on ``base_lr``, and ``overrides`` the last part of a name
    to hyperparameters, which win. ValueError for a factor without ``base_lr``, or for "bias" both
    in ``overrides`` and by argument.
    """
    has_bias_factor = bias_lr_factor is not None and bias_lr_factor != 1.0
    if base_lr is None and (has_bias_factor or lr_factor_func is not None):
        raise ValueError("bias_lr_factor and lr_factor_func need base_lr")
    for_bias: dict[str, float] = {}
    if has_bias_factor:
        for_bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        for_bias["weight_decay"] = weight_decay_bias
    overrides = dict(overrides or {})
    if for_bias:
        if "bias" in overrides:
            raise ValueError("overrides['bias'] contradicts bias_lr_factor or weight_decay_bias")
        overrides["bias"] = for_bias

    common = {"lr": base_lr, "weight_decay": weight_decay}
    common = {name: value for name, value in common.items() if value is not None}
    groups: dict[tuple[tuple[str, float], ...], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            chosen = dict(common)
            if weight_decay_norm is not None and isinstance(module, _NORMS):
                chosen["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                chosen["lr"] *= lr_factor_func(f"{module_name}.{name}")
            chosen.update(overrides.get(name, {}))
            groups.setdefault(tuple(chosen.items()), []).append(parameter)
    return [{**dict(chosen), "params": members} for chosen, members in groups.items()]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD over the trainable parameters, as ``SOLVER`` says."""
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule of ``SOLVER`` with its warm-up; ValueError for an unknown name."""
    solver = cfg.SOLVER
    name, max_iter = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= max_iter]
        if len(steps) < len(solver.STEPS):
            logging.getLogger(__name__).warning("SOLVER.STEPS above MAX_ITER are left out")
        values = [solver.GAMMA**decays for decays in range(len(steps) + 1)]
        schedule = MultiStepParamScheduler(values, milestones=steps, num_updates=max_iter)
    elif name == "WarmupCosineLR":
        last = solver.BASE_LR_END / solver.BASE_LR
        assert 0 <= last <= 1, f"SOLVER.BASE_LR_END must lie in [0, BASE_LR], is {last} times it"
        schedule = CosineParamScheduler(1, last)
    elif name == "WarmupStepWithFixedGammaLR":
        schedule = StepWithFixedGammaParamScheduler(1.0, solver.NUM_DECAYS, solver.GAMMA, max_iter)
    else:
        raise ValueError(f"unknown SOLVER.LR_SCHEDULER_NAME {name!r}")
    schedule = WarmupParamScheduler(
        schedule,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / max_iter, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, schedule, max_iter=max_iter)
