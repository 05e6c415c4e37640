"""The switches for speed, MODEL.AUTOCAST and MODEL.COMPILE, agree with the plain model."""

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from tests.modeling.method_tester import batch
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError

METHODS = ("LDVC", "ZegCLIP")


def build(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return ZeroShotTrainer.build_model(cfg)


def loss_and_gradient(model: nn.Module, items: list[dict]) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)  # dropout
    loss = sum(model.train()(items).values())
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


def both_precisions(cfg: CfgNode) -> tuple[nn.Module, nn.Module]:
    plain = build(cfg)
    cfg.MODEL.AUTOCAST = "bfloat16"
    return plain, build(cfg)


def score_differences(plain: nn.Module, half: nn.Module, items: list[dict]) -> torch.Tensor:
    pairs = zip(plain.eval()(items), half.eval()(items), strict=True)
    differences = [(a["sem_seg"] - b["sem_seg"]).abs().flatten() for a, b in pairs]
    return torch.cat(differences)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_stays_near_single_precision(make_cfg, method):
    """Eight bits of mantissa: losses within 2 %, gradients in one direction, scores within 0.01.

    Route attention looks at all windows here, so that there is no choice which rounding can turn.
    """
    items = batch((64, 64), (40, 90))
    plain, half = both_precisions(
        make_cfg("MODEL.META_ARCHITECTURE", method, "MODEL.LDVC.ROUTE_TOPK", 16)
    )
    assert score_differences(plain, half, items).max() < 0.01
    loss, gradient = loss_and_gradient(plain, items)
    half_loss, half_gradient = loss_and_gradient(half, items)
    assert half_loss != loss
    assert half_loss == pytest.approx(loss, rel=0.02)
    assert torch.cosine_similarity(half_gradient, gradient, dim=0) > 0.98


def test_rounding_that_turns_a_choice_of_windows_moves_few_scores(make_cfg):
    """Between two windows of nearly the same affinity; on average scores stay within 0.01."""
    plain, half = both_precisions(make_cfg("MODEL.LDVC.ROUTE_TOPK", 4))
    assert score_differences(plain, half, batch((64, 64), (40, 90))).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_compiled_parts_give_the_same_and_keep_their_names(make_cfg, method):
    """With the backend that traces but needs no compiler; only the order of sums may differ."""
    items = batch((64, 64), (40, 90))
    cfg = make_cfg("MODEL.META_ARCHITECTURE", method, "MODEL.LDVC.NUM_LAYERS", 1)
    plain = build(cfg)
    cfg.MODEL.COMPILE = "aot_eager"
    compiled = build(cfg)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    torch._dynamo.utils.counters.clear()
    loss, gradient = loss_and_gradient(plain, items)
    assert not torch._dynamo.utils.counters["frames"]
    compiled_loss, compiled_gradient = loss_and_gradient(compiled, items)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert compiled_loss == pytest.approx(loss, rel=1e-4)
    torch.testing.assert_close(compiled_gradient, gradient, atol=1e-4, rtol=1e-3)
    for expected, got in zip(plain.eval()(items), compiled.eval()(items), strict=True):
        torch.testing.assert_close(got["sem_seg"], expected["sem_seg"], atol=1e-5, rtol=1e-4)


def test_an_unknown_backend_is_refused(make_cfg):
    with pytest.raises(ZssError, match="COMPILE is 'fast'; use one of .*inductor"):
        ZeroShotTrainer.build_model(make_cfg("MODEL.COMPILE", "fast"))
