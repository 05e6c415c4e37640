"""Parameter groups, learning rates per iteration, gradient clipping."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import (
    LRMultiplier,
    WarmupParamScheduler,
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


@pytest.mark.parametrize(
    ("method", "expected"),
    [("linear", [0.1, 0.45, 0.8, 0.7, 0.6]), ("constant", [0.1, 0.1, 0.8, 0.7, 0.6])],
)
def test_poly_with_warmup(method: str, expected: list[float]) -> None:
    poly = PolynomialDecayParamScheduler(1.0, power=1)
    schedule = WarmupParamScheduler(poly, 0.1, 0.2, method)
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
        weight_decay_norm=0.0,
        lr_factor_func=lambda name: 0.25 if name.startswith("body.") else 1.0,
    )
    assert groups_by_name(model, groups) == {
        "prompts": {"lr": 1.0},
        "body.weight": {"lr": 0.25},
        "body.bias": {"lr": 0.25},
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": {"lr": 1.0, "weight_decay": 0.0},
    }
    assert len(groups) == 3
    assert sum(len(group["params"]) for group in groups) == 5


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
