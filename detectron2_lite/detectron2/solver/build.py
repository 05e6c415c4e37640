"""Parameter groups, gradient clipping and schedules."""

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    LinearParamScheduler,
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
    base_lr: float,
    *,
    weight_decay_norm: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, each parameter once, by equal hyperparameters.

    ``weight_decay_norm`` is for normalization layers (None: what the optimizer has for all),
    ``lr_factor_func`` maps a full parameter name to a factor on ``base_lr``.
    """
    groups: dict[tuple[tuple[str, float], ...], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            factor = lr_factor_func(f"{module_name}.{name}") if lr_factor_func else 1.0
            chosen = {"lr": base_lr * factor}
            if weight_decay_norm is not None and isinstance(module, _NORMS):
                chosen["weight_decay"] = weight_decay_norm
            groups.setdefault(tuple(chosen.items()), []).append(parameter)
    return [{**dict(key), "params": members} for key, members in groups.items()]


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule whose first part is replaced by a warm-up.

    Args:
        warmup_factor: first value, as a multiple of the schedule's own first value.
        warmup_length: fraction of training, in [0, 1].
        warmup_method: "linear" rises to where the schedule continues, "constant" stays.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
    ) -> None:
        if warmup_method not in ("linear", "constant"):
            raise ValueError(f"unknown warmup_method {warmup_method!r}: use 'linear' or 'constant'")
        first = last = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            last = scheduler(warmup_length)
        super().__init__(
            [LinearParamScheduler(first, last), scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets each group's rate to its initial rate times one schedule; step once per iteration."""

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Initial rates and the iteration; the schedule itself comes from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [factor * base_lr for base_lr in self.base_lrs]
