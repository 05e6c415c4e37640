import copy
import logging

import pytest
import torch
from detectron2.solver import LRMultiplier, WarmupParamScheduler

from zss_d2.engine.optimizer import (
    PolyWithFloor,
    build_lr_scheduler,
    build_optimizer,
    lr_factor,
    parameter_names,
    resumed_state,
)
from zss_d2.errors import ZssError


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(2, 2, bias=False)
        self.decoder = torch.nn.Linear(2, 2, bias=False)
        self.norm = torch.nn.LayerNorm(2)
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)


def test_groups_follow_prefixes_norms_and_freezing(make_cfg):
    cfg = make_cfg("SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY", 0.1)
    cfg.SOLVER.LR_FACTORS = [["decoder", 10.0]]
    model = Model()
    optimizer = build_optimizer(cfg, model)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found == {
        id(model.encoder.weight): (0.5, 0.1),
        id(model.decoder.weight): (5.0, 0.1),
        id(model.norm.weight): (0.5, 0.0),
        id(model.norm.bias): (0.5, 0.0),
    }


def test_the_longest_prefix_wins():
    factor = lr_factor([["a", 2.0], ["a.b", 3.0]])
    assert [factor(name) for name in ("a.c", "a.b.c", "b.a")] == [2.0, 3.0, 1.0]


def test_a_prefix_that_matches_nothing_is_an_error(make_cfg):
    cfg = make_cfg()
    cfg.SOLVER.LR_FACTORS = [["decodr", 10.0]]
    with pytest.raises(ZssError, match="'decodr'.*decoder, encoder, norm"):
        build_optimizer(cfg, Model())


def test_nothing_to_train_is_an_error(make_cfg):
    with pytest.raises(ZssError, match="nothing to train; use --eval-only"):
        build_optimizer(make_cfg(), Model().requires_grad_(False))


def test_schedule_by_hand(make_cfg):
    """Linear warm-up over 2 of 8 iterations, then poly with power 1 down to a tenth."""
    cfg = make_cfg("SOLVER.BASE_LR", 1.0, "SOLVER.MIN_LR", 0.1, "SOLVER.POLY_POWER", 1.0)
    cfg.merge_from_list(
        ["SOLVER.MAX_ITER", 8, "SOLVER.WARMUP_ITERS", 2, "SOLVER.WARMUP_FACTOR", 0.0]
    )
    cfg.SOLVER.LR_FACTORS = []
    optimizer = build_optimizer(cfg, Model())
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    poly = [0.1 + 0.9 * (1 - i / 8) for i in range(9)]
    assert rates == pytest.approx([0.0, poly[2] / 2, *poly[2:8]])


FACTORS = {"encoder": 1.0, "decoder": 10.0, "norm": 0.1}


def rates_of(cfg, iterations: int) -> dict[str, list[float]]:
    """The learning rate at every iteration, by the name of the module."""
    cfg.SOLVER.LR_FACTORS = [[name, factor] for name, factor in FACTORS.items()]
    model = Model()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = {name: [] for name in FACTORS}
    owner = {id(p): name for name in FACTORS for p in getattr(model, name).parameters()}
    for _ in range(iterations):
        now = {owner[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
        for name, rate in now.items():
            found[name].append(rate)
        optimizer.step()
        scheduler.step()
    return found


def slow_rate(t: int, start: float, solver) -> float:
    """One group at one iteration: decay to an absolute floor, times a linear warm-up."""
    remaining = (solver.MAX_ITER - t) / solver.MAX_ITER
    rate = solver.MIN_LR + (start - solver.MIN_LR) * remaining**solver.POLY_POWER
    if t < solver.WARMUP_ITERS:
        missing = (solver.WARMUP_ITERS - t) / solver.WARMUP_ITERS * (1 - solver.WARMUP_FACTOR)
        rate -= rate * missing
    return rate


@pytest.mark.parametrize(("iterations", "warmup"), [(200, 15), (200, 0), (20, 50)])
def test_every_group_follows_the_slow_reference(make_cfg, iterations, warmup):
    """ZegCLIP's released schedule in proportion; a warm-up may be longer than a short run."""
    cfg = make_cfg(
        *("SOLVER.BASE_LR", 2e-5, "SOLVER.MIN_LR", 1e-6, "SOLVER.MAX_ITER", iterations),
        *("SOLVER.WARMUP_ITERS", warmup, "SOLVER.WARMUP_FACTOR", 1e-6),
        *("SOLVER.WARMUP_METHOD", "linear_factor"),
    )
    for name, rates in rates_of(cfg, iterations + 1).items():
        start = FACTORS[name] * 2e-5
        expected = [slow_rate(t, start, cfg.SOLVER) for t in range(iterations + 1)]
        assert rates == pytest.approx(expected, rel=1e-9, abs=0), name


@pytest.mark.parametrize("method", ["linear", "linear_factor", "constant"])
def test_all_groups_end_at_the_same_floor(make_cfg, method):
    cfg = make_cfg("SOLVER.BASE_LR", 1.0, "SOLVER.MIN_LR", 0.01, "SOLVER.MAX_ITER", 10)
    cfg.merge_from_list(["SOLVER.WARMUP_ITERS", 2, "SOLVER.WARMUP_METHOD", method])
    assert [rates[-1] for rates in rates_of(cfg, 11).values()] == pytest.approx([0.01] * 3)


def test_a_straight_warm_up_of_one_group_is_that_of_detectron2(make_cfg):
    """To the last bit: stored results depend on it."""
    cfg = make_cfg("SOLVER.BASE_LR", 3e-3, "SOLVER.MIN_LR", 1e-5, "SOLVER.MAX_ITER", 400)
    cfg.merge_from_list(["SOLVER.WARMUP_ITERS", 20, "SOLVER.WARMUP_FACTOR", 0.1])
    cfg.SOLVER.LR_FACTORS = []
    ours = build_optimizer(cfg, Model())
    theirs = torch.optim.AdamW(Model().parameters(), lr=3e-3)
    decay = PolyWithFloor(cfg.SOLVER.POLY_POWER, 1e-5 / 3e-3)
    schedulers = [
        build_lr_scheduler(cfg, ours),
        LRMultiplier(theirs, WarmupParamScheduler(decay, 0.1, 20 / 400, "linear"), max_iter=400),
    ]
    for _ in range(400):
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
        for optimizer, scheduler in zip((ours, theirs), schedulers, strict=True):
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(("old", "factors"), [(False, 10.0), (True, 10.0), (True, 1.0)])
def test_a_schedule_goes_on_from_its_state(make_cfg, caplog, old, factors):
    """Also from the state that earlier versions left, which is said where it matters."""
    cfg = make_cfg("SOLVER.BASE_LR", 1.0, "SOLVER.MIN_LR", 0.01, "SOLVER.MAX_ITER", 10)
    cfg.SOLVER.LR_FACTORS = [["decoder", factors]]
    through, resumed = (build_optimizer(cfg, Model()) for _ in range(2))
    first, second = (build_lr_scheduler(cfg, optimizer) for optimizer in (through, resumed))
    for _ in range(4):
        through.step()
        first.step()
    state = first.state_dict()
    if old:
        state = {key: state[key] for key in ("base_lrs", "last_epoch")}
    resumed.load_state_dict(through.state_dict())
    with caplog.at_level(logging.WARNING):
        second.load_state_dict(state)
    assert ("an earlier version" in caplog.text) == (old and factors == 10.0)
    for optimizer, scheduler in ((through, first), (resumed, second)):
        optimizer.step()
        scheduler.step()
    rates = [[group["lr"] for group in o.param_groups] for o in (through, resumed)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("base_lr", "factor", "lowest"), [(2e-5, 0.01, "2e-07"), (0.0, 1.0, "0;"), (1.0, 0.0, "0;")]
)
def test_a_group_that_would_not_start_above_its_end_is_an_error(make_cfg, base_lr, factor, lowest):
    cfg = make_cfg("SOLVER.BASE_LR", base_lr, "SOLVER.MIN_LR", 1e-6)
    cfg.SOLVER.LR_FACTORS = [["decoder", factor]]
    with pytest.raises(ZssError, match=f"SOLVER.BASE_LR .* learning rate {lowest}.*MIN_LR"):
        build_lr_scheduler(cfg, build_optimizer(cfg, Model()))


def test_poly_reaches_its_floor():
    schedule = PolyWithFloor(power=0.9, floor=0.05)
    assert schedule(0.0) == 1.0
    assert schedule(1.0) == 0.05


def test_an_unknown_schedule_is_an_error(make_cfg):
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")
    with pytest.raises(ZssError, match="'WarmupCosineLR'"):
        build_lr_scheduler(cfg, torch.optim.AdamW(Model().parameters()))


def test_an_unknown_warm_up_is_an_error(make_cfg):
    cfg = make_cfg("SOLVER.WARMUP_METHOD", "exp")
    with pytest.raises(ZssError, match="SOLVER.WARMUP_METHOD is 'exp'; use 'linear',"):
        build_lr_scheduler(cfg, torch.optim.AdamW(Model().parameters()))


@pytest.mark.parametrize(
    ("method", "warned"), [("linear", True), ("constant", True), ("linear_factor", False)]
)
def test_a_warm_up_that_is_longer_than_training_is_said(make_cfg, method, warned, caplog):
    cfg = make_cfg("SOLVER.WARMUP_ITERS", 9, "SOLVER.MAX_ITER", 4, "SOLVER.WARMUP_METHOD", method)
    build_lr_scheduler(cfg, build_optimizer(cfg, Model()))
    assert ("WARMUP_ITERS is 9 and MAX_ITER 4" in caplog.text) == warned


def trained(model: Model, fused: bool, steps: int, state: dict | None = None) -> torch.optim.AdamW:
    """AdamW after steps on a loss that all parameters are in, from another one's state or anew."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=fused)
    if state is not None:
        names = parameter_names(optimizer, model)
        optimizer.load_state_dict(resumed_state(optimizer, names, state, names))
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p**2).sum() for p in parameters).backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [(True, False), (False, True)])
def test_a_run_goes_on_fused_or_not(fused):
    """As one that moves between CPU and GPU does; a group keeps whether it is fused."""
    start = Model()
    whole, stopped = (copy.deepcopy(start) for _ in range(2))
    trained(whole, False, 6)
    state = trained(stopped, fused[0], 3).state_dict()
    resumed = trained(stopped, fused[1], 3, state)
    assert bool(resumed.param_groups[0]["fused"]) == fused[1]
    assert {float(s["step"]) for s in resumed.state.values()} == {6.0}
    for a, b in zip(stopped.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_on_a_cpu_torch_chooses_how_to_step(make_cfg):
    """Not fused, as stored results were made."""
    cfg = make_cfg()
    cfg.SOLVER.LR_FACTORS = []
    assert all(not group["fused"] for group in build_optimizer(cfg, Model()).param_groups)
