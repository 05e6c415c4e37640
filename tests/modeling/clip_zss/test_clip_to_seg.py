"""C2S as settings of the student meta-architecture, end to end."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.clip_zss.test_clip_zss import TINY, WITHOUT_TEACHER, degenerate
from tests.modeling.method_tester import MethodTester, batch
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss import criterion

SETTINGS = "MODEL.CLIP_ZSS."
C2S = (
    *TINY,
    *(SETTINGS + "REGIONS", "unannotated", SETTINGS + "LOCAL_WEIGHT", 1.0),
    *(SETTINGS + "LOCAL.SIZE", 32, SETTINGS + "LOCAL.MAX_REGIONS", 4),
    *(SETTINGS + "SYNTHESIZER.MEMORY", "global_local", SETTINGS + "BCE_WEIGHT", 0.0),
    *(SETTINGS + "COSINE", False, SETTINGS + "ALPHA", 3.0),
)
ALL = ("ce", "nel", "global", "local")
ATTENTION = (*C2S, SETTINGS + "LOCAL.CLS", "attention")


class TestC2S(MethodTester):
    overrides = C2S
    trained_prefixes = {"student", "learner"}


class TestC2SByAttention(MethodTester):
    overrides = ATTENTION
    trained_prefixes = {"student", "learner"}


def half_void() -> list[dict]:
    """Images of whose left half nothing is labelled, in which latent regions are found."""
    items = batch((64, 64), (64, 64))
    for item in items:
        item["sem_seg"][:, :32] = 255
    return items


def losses_of(make_cfg, *overrides) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(make_cfg(*overrides)).train()
    torch.manual_seed(1)
    return model(half_void())


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((), {f"loss_{x}" for x in ALL}),
        ((SETTINGS + "LOCAL_WEIGHT", 0.0), {"loss_ce", "loss_nel", "loss_global"}),
        ((SETTINGS + "PSEUDO_WEIGHT", 0.0), {f"loss_{x}" for x in ALL}),
        ((SETTINGS + "GLOBAL_WEIGHT", 0.0), {"loss_ce", "loss_nel", "loss_local"}),
        (
            (SETTINGS + "PROTOTYPES", "teacher"),
            {"loss_ce", "loss_nel", "loss_global", "loss_local"},
        ),
    ],
)
def test_every_term_has_a_curve_of_its_own(make_cfg, overrides, names):
    assert set(losses_of(make_cfg, *C2S, *overrides)) == names


def test_regions_alone_give_no_pixel_its_label_without_plm(make_cfg):
    """Local distillation beside GLM: the pixel losses are those of ground truth."""
    off = (SETTINGS + "PSEUDO_WEIGHT", 0.0)
    with_local = losses_of(make_cfg, *C2S, *off)
    without = losses_of(make_cfg, *C2S, *off, SETTINGS + "LOCAL_WEIGHT", 0.0)
    for name in ("loss_ce", "loss_nel", "loss_global"):
        assert torch.equal(with_local[name], without[name])
    assert with_local["loss_local"] > 0


def test_the_weight_scales_the_local_loss_alone(make_cfg):
    one = losses_of(make_cfg, *C2S)
    third = losses_of(make_cfg, *C2S, SETTINGS + "LOCAL_WEIGHT", 0.3)
    torch.testing.assert_close(third.pop("loss_local"), 0.3 * one.pop("loss_local"))
    assert one == third


def test_what_the_regions_are_seen_as_reaches_the_prototypes(make_cfg):
    """Through the memory of the synthesizer: other tokens, other logits."""
    both = losses_of(make_cfg, *C2S)
    alone = losses_of(make_cfg, *C2S, SETTINGS + "SYNTHESIZER.MEMORY", "global")
    assert both["loss_ce"] != alone["loss_ce"]
    assert torch.equal(both["loss_local"], alone["loss_local"])


@pytest.mark.parametrize("overrides", [C2S, ATTENTION], ids=["passes", "attention"])
@pytest.mark.parametrize("kind", ["one colour", "all labelled", "all unlabelled"])
def test_degenerate_batches_train(make_cfg, kind, overrides):
    model = build_model(make_cfg(*overrides)).train()
    losses = model(degenerate(kind))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Also of the synthesizer without any region: distributed training waits for each.
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_unseen_text_takes_no_part_in_training(make_cfg):
    model = build_model(make_cfg(*C2S)).train()
    items = half_void()
    unseen = [i for i, name in enumerate(model.classes) if name not in model.train_classes]
    model.learner.global_learning.bank_size = 0
    before = {name: value.item() for name, value in model(items).items()}
    model.classifier.embeddings[unseen] = torch.randn(len(unseen), 64)
    assert {name: value.item() for name, value in model(items).items()} == before


def test_images_of_a_batch_do_not_meet_but_in_glm(make_cfg):
    """The mean of the local losses of halves, as of two processes, is that of the batch."""
    off = (SETTINGS + "GLOBAL_WEIGHT", 0.0, SETTINGS + "NEL_WEIGHT", 0.0)
    model = build_model(make_cfg(*C2S, *off)).train()
    items = half_void()
    whole = model(items)["loss_local"]
    halves = [model([item])["loss_local"] for item in items]
    torch.testing.assert_close(sum(halves) / 2, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("overrides", [C2S, ATTENTION], ids=["passes", "attention"])
@pytest.mark.parametrize("by", ["AUTOCAST", "AMP"])
def test_towers_are_in_half_and_losses_in_single_precision(make_cfg, monkeypatch, overrides, by):
    own = ("MODEL.AUTOCAST", "bfloat16") if by == "AUTOCAST" else ()
    model = build_model(make_cfg(*overrides, *own)).train()
    tower, seen = model.learner.teacher.tower.module, {}
    original = {name: getattr(tower, name) for name in ("cls", "region_cls")}

    def spy(name):
        def look(*args):
            tokens = original[name](*args)
            seen[name] = torch.is_autocast_enabled("cpu"), tokens.dtype
            return tokens

        return look

    for name in original:
        monkeypatch.setattr(tower, name, spy(name))
    loss_of = criterion.local_info_nce

    def look_at_loss(student, teacher, *rest):
        seen["loss"] = torch.is_autocast_enabled("cpu"), student.dtype, teacher.dtype
        return loss_of(student, teacher, *rest)

    monkeypatch.setattr(criterion, "local_info_nce", look_at_loss)
    with torch.autocast("cpu", torch.bfloat16, enabled=by == "AMP"):
        losses = model(half_void())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    called = "region_cls" if overrides is ATTENTION else "cls"
    assert seen[called] == (True, torch.bfloat16)
    assert seen["loss"] == (False, torch.float32, torch.float32)


def test_a_synthesizer_that_nothing_trains_is_refused(make_cfg):
    with pytest.raises(ZssError, match="nothing trains the synthesizer; set one of them"):
        build_model(make_cfg(*C2S, SETTINGS + "DETACH_PROTOTYPES", True))


def test_a_local_loss_of_one_region_is_refused(make_cfg):
    """It would be 0 whatever is learnt; C_l alone may be of one region."""
    one = (SETTINGS + "LOCAL.MAX_REGIONS", 1)
    with pytest.raises(ZssError, match="LOCAL.MAX_REGIONS is 1 and LOCAL_WEIGHT 1: .* loss is 0"):
        build_model(make_cfg(*C2S, *one))
    build_model(make_cfg(*C2S, *one, SETTINGS + "LOCAL_WEIGHT", 0.0))


def test_in_tests_nothing_of_it_is_there(make_cfg, tmp_path):
    """The student of a C2S checkpoint is that of any other: no CLIP, no synthesizer."""
    model = build_model(make_cfg(*C2S)).eval()
    ZeroShotCheckpointer(model, str(tmp_path)).save("c2s")
    plain = (SETTINGS + "COSINE", False, SETTINGS + "ALPHA", 3.0)
    student = build_model(make_cfg(*WITHOUT_TEACHER, *plain)).eval()
    ZeroShotCheckpointer(student).load(str(tmp_path / "c2s.pth"))
    (item,) = batch((64, 64))
    assert torch.equal(student([item])[0]["sem_seg"], model([item])[0]["sem_seg"])
    assert {name.split(".")[0] for name, _ in student.named_parameters()} == {"student"}


def test_the_checkpoint_holds_no_clip(make_cfg):
    learner = [key for key in build_model(make_cfg(*C2S)).state_dict() if "learner" in key]
    assert learner
    assert all(key.startswith("learner.pixel_learning.synthesizer") for key in learner)
