"""Parameter groups, learning rates per iteration, gradient clipping."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.solver import (
    LRMultiplier,
    WarmupParamScheduler,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler
from torch import nn


def learning_rates(scheduler: LRMultiplier, iterations: int) -> list[float]:
    """Rate of the first group in each iteration."""
    rates = []
    for _ in range(iterations):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def sgd(lr: float) -> torch.optim.SGD:
    """Optimizer of one number."""
    return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr)


def solver_cfg(**values: object) -> CfgNode:
    """Defaults with some ``SOLVER`` values."""
    cfg = get_cfg()
    for name, value in values.items():
        cfg.SOLVER[name] = value
    return cfg


@pytest.mark.parametrize(
    ("method", "warmup"),
    [("linear", [0.2, 0.65, 1.1, 1.55]), ("constant", [0.2, 0.2, 0.2, 0.2])],
)
def test_multi_step(method: str, warmup: list[float]) -> None:
    cfg = solver_cfg(
        MAX_ITER=10, STEPS=(6, 8, 99), WARMUP_ITERS=4, WARMUP_FACTOR=0.1, WARMUP_METHOD=method
    )
    rates = learning_rates(build_lr_scheduler(cfg, sgd(2.0)), 10)
    assert rates == pytest.approx([*warmup, 2.0, 2.0, 0.2, 0.2, 0.02, 0.02])


def test_cosine_warms_up_to_the_running_schedule() -> None:
    cfg = solver_cfg(
        LR_SCHEDULER_NAME="WarmupCosineLR",
        MAX_ITER=8,
        BASE_LR=1.0,
        BASE_LR_END=0.5,
        WARMUP_ITERS=2,
        WARMUP_FACTOR=0.0,
    )
    cosine = [0.75 + 0.25 * math.cos(math.pi * step / 8) for step in range(8)]
    rates = learning_rates(build_lr_scheduler(cfg, sgd(1.0)), 8)
    assert rates == pytest.approx([0.0, cosine[2] / 2, *cosine[2:]])


def test_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="NoSuchLR"):
        build_lr_scheduler(solver_cfg(LR_SCHEDULER_NAME="NoSuchLR"), sgd(1.0))


@pytest.mark.parametrize(
    ("rescale", "expected"),
    [(False, [0.1, 0.45, 0.8, 0.7, 0.6]), (True, [0.1, 0.55, 1.0, 0.875, 0.75])],
)
def test_poly_with_warmup(rescale: bool, expected: list[float]) -> None:
    schedule = WarmupParamScheduler(
        PolynomialDecayParamScheduler(1.0, power=1), 0.1, 0.2, rescale_interval=rescale
    )
    rates = learning_rates(LRMultiplier(sgd(1.0), schedule, max_iter=10), 5)
    assert rates == pytest.approx(expected)


def test_multiplier_keeps_the_ratio_between_groups() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(()))], "lr": lr} for lr in (1.0, 10.0)]
    optimizer = torch.optim.AdamW(groups, lr=0.5)
    scheduler = LRMultiplier(optimizer, PolynomialDecayParamScheduler(1.0, power=2), max_iter=4)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5625, 5.625])
    assert scheduler.get_last_lr() == pytest.approx([0.5625, 5.625])


def test_multiplier_resumes_from_its_state() -> None:
    schedule = PolynomialDecayParamScheduler(1.0, power=1)
    first = LRMultiplier(sgd(1.0), schedule, max_iter=10)
    learning_rates(first, 4)
    state = first.state_dict()
    assert state == {"base_lrs": [1.0], "last_epoch": 4}
    second = LRMultiplier(sgd(1.0), schedule, max_iter=10)
    second.load_state_dict(state)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert learning_rates(second, 3) == pytest.approx([0.6, 0.5, 0.4])


def test_multiplier_refuses_other_functions() -> None:
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(sgd(1.0), lambda where: 1.0, max_iter=10)


def test_unknown_warmup_is_named() -> None:
    with pytest.raises(ValueError, match="cubic"):
        WarmupParamScheduler(PolynomialDecayParamScheduler(1.0, 1), 0.1, 0.2, "cubic")


class Net(nn.Module):
    """A frozen layer, a norm, a tied layer, and an own parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.body = nn.Linear(2, 3)
        self.norm = nn.LayerNorm(3)
        self.tied = self.body
        self.prompts = nn.Parameter(torch.zeros(4))


def groups_by_name(model: nn.Module, groups: list[dict]) -> dict[str, dict[str, float]]:
    """Hyperparameters of each parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for parameter in group["params"]
    }


def test_parameter_groups() -> None:
    model = Net()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        lr_factor_func=lambda name: 0.25 if name.startswith("body.") else 1.0,
        overrides={"prompts": {"weight_decay": 0.5}},
    )
    assert groups_by_name(model, groups) == {
        "prompts": {"lr": 1.0, "weight_decay": 0.5},
        "body.weight": {"lr": 0.25, "weight_decay": 0.1},
        "body.bias": {"lr": 0.25, "weight_decay": 0.1},
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": {"lr": 1.0, "weight_decay": 0.0},
    }
    assert len(groups) == 3
    assert sum(len(group["params"]) for group in groups) == 5


def test_factor_needs_a_base_rate() -> None:
    with pytest.raises(ValueError, match="base_lr"):
        get_default_optimizer_params(Net(), lr_factor_func=len)


def test_build_optimizer() -> None:
    model = Net()
    optimizer = build_optimizer(solver_cfg(BASE_LR=0.5, MOMENTUM=0.8), model)
    assert isinstance(optimizer, torch.optim.SGD)
    chosen = groups_by_name(model, optimizer.param_groups)
    assert set(chosen) == {"prompts", "body.weight", "body.bias", "norm.weight", "norm.bias"}
    assert chosen["norm.bias"]["weight_decay"] == 0.0
    assert chosen["body.bias"]["weight_decay"] == 0.0001
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("clip_type", "expected"),
    # Each parameter by itself: (4, 0.5) has norm 4.03113, and neither limit mixes in the 7.
    [("value", [1.0, 0.5, -1.0]), ("norm", [0.992278, 0.124035, -1.0])],
)
def test_clipping_of_each_parameter(clip_type: str, expected: list[float]) -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    assert issubclass(optimizer_class, torch.optim.SGD)
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    first.grad, second.grad = torch.tensor([4.0, 0.5]), torch.tensor([-7.0])
    optimizer_class([first, second], lr=1.0).step()
    moved = [*first.tolist(), *second.tolist()]
    assert moved == pytest.approx([-value for value in expected], abs=1e-5)


def test_clipping_by_norm_passes_over_unused_parameters() -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    unused = nn.Parameter(torch.ones(1))
    maybe_add_gradient_clipping(cfg, torch.optim.SGD)([unused], lr=1.0).step()
    assert unused.item() == 1.0


def test_no_clipping_leaves_the_class_alone() -> None:
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.AdamW) is torch.optim.AdamW


def test_unknown_clipping_is_refused() -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "hope"
    with pytest.raises(ValueError, match="hope"):
        maybe_add_gradient_clipping(cfg, torch.optim.SGD)
