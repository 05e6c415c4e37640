import pytest
import torch

from zss_d2.engine.optim import PolyWithFloor, build_lr_scheduler, build_optimizer, lr_factor
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


def test_poly_reaches_its_floor():
    schedule = PolyWithFloor(power=0.9, floor=0.05)
    assert schedule(0.0) == 1.0
    assert schedule(1.0) == 0.05


def test_an_unknown_schedule_is_an_error(make_cfg):
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")
    with pytest.raises(ZssError, match="'WarmupCosineLR'"):
        build_lr_scheduler(cfg, torch.optim.AdamW(Model().parameters()))
