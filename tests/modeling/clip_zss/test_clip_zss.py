"""The student meta-architecture end to end: shared tests, losses, leaks, life without CLIP."""

import open_clip
import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.method_tester import MethodTester, batch
from zss_d2.clip import towers as clip_build
from zss_d2.config.defaults import validate_config
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError

TINY = (
    *("MODEL.META_ARCHITECTURE", "CLIPZSS", "MODEL.BACKBONE.NAME", "build_mscan_backbone"),
    *("MODEL.CLIP_ZSS.ENCODER.NAME", "mini", "MODEL.CLIP_ZSS.ENCODER.NORM", "GN"),
    *("MODEL.CLIP_ZSS.ENCODER.CHANNELS", 32, "MODEL.CLIP_ZSS.SYNTHESIZER.NUM_HEADS", 4),
    *("MODEL.CLIP_ZSS.SYNTHESIZER.FFN_DIM", 64, "MODEL.CLIP_ZSS.WINDOWS", [2, 4]),
)
WITHOUT_TEACHER = (*TINY, "MODEL.CLIP_ZSS.TEACHER", False)
CE_ONLY = tuple(
    part
    for term in ("GLOBAL_WEIGHT", "PSEUDO_WEIGHT", "NEL_WEIGHT")
    for part in (f"MODEL.CLIP_ZSS.{term}", 0.0)
)


class TestCLIPZSS(MethodTester):
    overrides = TINY
    trained_prefixes = {"student", "learner"}


class TestCEOnly(MethodTester):
    overrides = (*TINY, *CE_ONLY)
    trained_prefixes = {"student"}


class TestTeacherPrototypes(MethodTester):
    overrides = (
        *TINY,
        *("MODEL.CLIP_ZSS.PROTOTYPES", "teacher", "MODEL.CLIP_ZSS.PSEUDO_WEIGHT", 0.1),
        *("MODEL.CLIP_ZSS.LOSS_STRIDE", 3),
        *("MODEL.CLIP_ZSS.COSINE", False, "MODEL.CLIP_ZSS.TEACHER_SIZE", 96),
    )
    trained_prefixes = {"student"}


def losses_of(make_cfg, *overrides) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(make_cfg(*TINY, *overrides)).train()
    torch.manual_seed(1)
    return model(batch((64, 64), (64, 64)))


def test_every_term_has_a_curve_of_its_own(make_cfg):
    assert set(losses_of(make_cfg)) == {"loss_ce", "loss_nel", "loss_global", "loss_bce"}
    assert set(losses_of(make_cfg, *CE_ONLY)) == {"loss_ce"}
    without_synthesizer = losses_of(make_cfg, "MODEL.CLIP_ZSS.PROTOTYPES", "student")
    assert set(without_synthesizer) == {"loss_ce", "loss_nel", "loss_global"}


def test_the_share_on_f_mixes_the_two_losses(make_cfg):
    truth, mixed, fused = (
        losses_of(make_cfg, "MODEL.CLIP_ZSS.PSEUDO_WEIGHT", share) for share in (0.0, 0.25, 1.0)
    )
    for name in ("loss_ce", "loss_nel"):
        torch.testing.assert_close(mixed[name], 0.75 * truth[name] + 0.25 * fused[name])
        assert truth[name] != fused[name]


def degenerate(kind: str) -> list[dict]:
    items = batch((64, 64), (64, 64))
    for item in items:
        if kind == "one colour":
            item["image"][:] = 128
        elif kind == "all labelled":
            item["sem_seg"][:] = 3
        elif kind == "all unlabelled":
            item["sem_seg"][:] = 255
    return items


@pytest.mark.parametrize("kind", ["one colour", "all labelled", "all unlabelled"])
@pytest.mark.parametrize("prototypes", ["synthesizer", "student", "teacher"])
def test_degenerate_batches_train(make_cfg, kind, prototypes):
    model = build_model(make_cfg(*TINY, "MODEL.CLIP_ZSS.PROTOTYPES", prototypes)).train()
    losses = model(degenerate(kind))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_unseen_text_takes_no_part_in_training(make_cfg):
    model = build_model(make_cfg(*TINY)).train()
    items = batch((64, 64))
    unseen = [i for i, name in enumerate(model.classes) if name not in model.train_classes]
    assert unseen
    model.learner.global_learning.bank_size = 0
    before = {name: value.item() for name, value in model(items).items()}
    model.classifier.embeddings[unseen] = torch.randn(len(unseen), 64)
    assert {name: value.item() for name, value in model(items).items()} == before


def test_padding_gets_no_pseudo_labels(make_cfg):
    """A small image beside a large one: its losses are those of the same image alone."""
    model = build_model(make_cfg(*TINY, "MODEL.CLIP_ZSS.TEACHER_SIZE", 96)).eval()
    (small,) = batch((32, 64))
    small["sem_seg"][:] = 255
    (padded,) = model._pad([model.normalise(small["image"])]).split(1)
    wide = torch.nn.functional.pad(padded, (0, 64))
    targets = torch.full((1, *wide.shape[2:]), -1)
    dense = model.learner.teacher(wide).dense
    inside = (wide != 0).any(dim=1)
    fused = model.learner.regions.label(dense, targets, inside, 15, (8, 32))
    assert (fused.labels[..., 64:] == -1).all()
    assert (fused.labels[..., :64] >= 15).all()


def test_rows_of_the_text_table_come_in_the_order_of_the_names(make_cfg):
    classifier = build_model(make_cfg(*TINY)).classifier
    names = classifier.class_names
    assert torch.equal(classifier(names), classifier.embeddings)
    for _ in range(2):
        some = classifier((names[4], names[1], names[9]))
        assert torch.equal(some, classifier.embeddings[[4, 1, 9]])
    classifier.embeddings.neg_()
    assert torch.equal(classifier((names[4], names[1], names[9])), -some)


def test_the_checkpoint_holds_no_clip_but_its_text_embeddings(make_cfg):
    state = build_model(make_cfg(*TINY)).state_dict()
    assert {key.split(".")[0] for key in state} == {"student", "classifier", "learner"}
    assert {key for key in state if key.startswith("classifier")} == {"classifier.embeddings"}
    assert all(
        key.startswith("learner.pixel_learning.synthesizer")
        for key in state
        if key.startswith("learner")
    )


@pytest.fixture
def trained(make_cfg, tmp_path) -> str:
    ZeroShotCheckpointer(build_model(make_cfg(*TINY)), str(tmp_path)).save("trained")
    return str(tmp_path / "trained.pth")


def test_inference_never_builds_clip(make_cfg, trained, monkeypatch):
    with_teacher = build_model(make_cfg(*TINY)).eval()
    ZeroShotCheckpointer(with_teacher).load(trained)
    (item,) = batch((64, 64))
    expected = with_teacher([item])[0]["sem_seg"]

    built = []
    visual = open_clip.transformer.VisionTransformer
    original = visual.__init__
    monkeypatch.setattr(visual, "__init__", lambda *a, **k: (built.append(1), original(*a, **k))[1])
    model = build_model(make_cfg(*WITHOUT_TEACHER)).eval()
    ZeroShotCheckpointer(model).load(trained)
    assert torch.equal(model([item])[0]["sem_seg"], expected)
    assert not built
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"student"}
    model([{**item, "vocabulary": ("zebra", "dog")}])
    assert built  # the spy sees what another vocabulary needs


def test_without_teacher_and_checkpoint_the_error_names_the_remedy(make_cfg):
    model = build_model(make_cfg(*WITHOUT_TEACHER))
    with pytest.raises(ZssError, match="give MODEL.WEIGHTS"):
        model.eval()(batch((64, 64)))
    with pytest.raises(ZssError, match="train with True"):
        model.train()(batch((64, 64)))


def test_the_teacher_follows_the_model_and_stays_frozen(make_cfg):
    model = build_model(make_cfg(*TINY)).double().train()
    tower = model.learner.teacher.tower.module
    assert next(tower.parameters()).dtype == torch.float64
    assert not tower.training
    assert not any(p.requires_grad for p in tower.parameters())


def test_the_teacher_sees_the_image_in_its_own_normalisation(make_cfg):
    model = build_model(make_cfg(*TINY)).eval()
    image = torch.randint(0, 255, (3, 64, 64)).float()
    towers = clip_build.build_clip_towers("zss-tiny", "")
    towers.image.load_state_dict(model.learner.teacher.tower.module.state_dict())
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (towers.pixel_mean, towers.pixel_std))
    expected = towers.image(((image - mean) / std)[None])
    got = model.learner.teacher(model.normalise(image)[None])
    torch.testing.assert_close(got.cls, expected.cls, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.dense, expected.dense, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("STATISTICS", "coco", "'imagenet', 'clip'"),
        ("PROTOTYPES", "mean", "'synthesizer', 'student', 'teacher'"),
        ("WINDOWS", [], "give 1 or more values"),
        ("PSEUDO_WEIGHT", 1.5, "use 0 to 1"),
        ("LOSS_STRIDE", 0, "use 1 or more"),
    ],
)
def test_bad_values_name_the_key(make_cfg, key, value, message):
    with pytest.raises(ZssError, match=f"MODEL.CLIP_ZSS.{key} .*{message}"):
        validate_config(make_cfg(*TINY, f"MODEL.CLIP_ZSS.{key}", value))


@pytest.mark.parametrize("prototypes", ["synthesizer", "teacher"])
def test_mixed_precision_gives_about_the_same_losses(make_cfg, prototypes):
    overrides = ("MODEL.CLIP_ZSS.PROTOTYPES", prototypes)
    exact = losses_of(make_cfg, *overrides)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = losses_of(make_cfg, *overrides)
    assert set(mixed) == set(exact)
    for name, value in mixed.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1), name
