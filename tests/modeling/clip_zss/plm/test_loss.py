"""Logits of seen text and pseudo prototypes against a loop; who competes with whom."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.methods.clip_zss.criterion import PixelLosses
from zss_d2.modeling.methods.clip_zss.plm.loss import (
    ABSENT,
    PLM,
    prototype_logits,
)
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED
from zss_d2.modeling.methods.clip_zss.plm.regions import RegionSettings
from zss_d2.modeling.methods.clip_zss.plm.synthesizer import Synthesizer

DIM, SEEN, ALPHA, BETA = 8, 3, 5.0, 7.0
REGIONS = RegionSettings((2, 4), 4, 0.8, min_tokens=1, min_unlabeled_fraction=0.0)


def learning(prototypes: str, detach: bool = False) -> PLM:
    synthesizer = Synthesizer(DIM, 1, 2, 16) if prototypes == "synthesizer" else None
    return PLM(
        prototypes=prototypes,
        synthesizer=synthesizer,
        alpha=ALPHA,
        beta=BETA,
        detach=detach,
    )


def inputs(batch: int) -> dict[str, torch.Tensor | ImageFeatures]:
    """Images whose left half is labelled 1 and whose right half is open, in two textures."""
    dense = 0.01 * torch.randn(batch, DIM, 8, 8)
    dense[:, 0, :, :4] += 1
    dense[:, 1, :4, 4:] += 1
    dense[:, 2, 4:, 4:] += 1
    targets = torch.full((batch, 16, 16), UNLABELLED)
    targets[:, :, :8] = 1
    features = torch.randn(batch, DIM, 4, 4, requires_grad=True)
    text = F.normalize(torch.randn(SEEN, DIM), dim=1)
    return {
        "teacher": ImageFeatures(torch.randn(batch, DIM), dense),
        "features": features,
        "seen_logits": torch.einsum("bchw,kc->bkhw", features, text),
        "text": text,
        "targets": targets,
        "inside": torch.ones_like(targets, dtype=torch.bool),
    }


def outputs(module: PLM, given: dict):
    """Of the module, with F as the criterion makes it."""
    given = dict(given)
    targets, inside = given.pop("targets"), given.pop("inside")
    size = given["features"].shape[2:]
    return module(fused=REGIONS.label(given["teacher"].dense, targets, inside, SEEN, size), **given)


def test_pseudo_regions_follow_the_texture_and_leave_the_label():
    labels = outputs(learning("student"), inputs(2)).labels
    assert (labels[:, :, :8] == 1).all()
    for image in labels:
        (upper,), (lower,) = image[:8, 8:].unique(), image[8:, 8:].unique()
        assert {int(upper), int(lower)} == {SEEN, SEEN + 1}


@pytest.mark.parametrize("prototypes", ["student", "teacher"])
def test_logits_equal_the_slow_reference(prototypes):
    given = inputs(2)
    got = outputs(learning(prototypes), given)
    source = given["features"]
    if prototypes == "teacher":
        source = F.interpolate(given["teacher"].dense, (4, 4), mode="bilinear")
    coarse = got.labels[:, 2::4, 2::4]
    for image in range(2):
        for pseudo in range(2):
            pixels = source[image][:, coarse[image] == SEEN + pseudo]
            prototype = pixels.mean(dim=1)
            for y in range(4):
                for x in range(4):
                    feature = given["features"][image, :, y, x]
                    expected = BETA * F.cosine_similarity(feature, prototype, dim=0)
                    torch.testing.assert_close(
                        got.logits[image, SEEN + pseudo, y, x], expected, atol=1e-5, rtol=1e-4
                    )
    assert torch.equal(got.logits[:, :SEEN], given["seen_logits"])
    assert got.loss_bce is None


@pytest.mark.parametrize("prototypes", ["synthesizer", "student", "teacher"])
def test_images_of_a_batch_do_not_compete_with_each_other(prototypes):
    given, module = inputs(3), learning(prototypes)
    given["targets"][0] = 2  # an image without any open pixel
    whole = outputs(module, given)
    assert (whole.logits[0, SEEN:] == ABSENT).all()
    for image in range(3):
        mine = slice(image, image + 1)
        alone = outputs(
            module,
            {
                name: ImageFeatures(value.cls[mine], value.dense[mine])
                if name == "teacher"
                else value
                if name == "text"
                else value[mine]
                for name, value in given.items()
            },
        )
        number = alone.logits.shape[1]
        torch.testing.assert_close(whole.logits[mine, :number], alone.logits)
        assert torch.equal(whole.labels[mine], alone.labels)


def test_an_absent_prototype_has_no_probability_and_a_finite_loss():
    features = torch.randn(1, DIM, 2, 2)
    present = torch.tensor([[True, False]])
    pseudo = prototype_logits(features, torch.randn(1, 2, DIM), present, BETA)
    logits = torch.cat([torch.randn(1, SEEN, 2, 2), pseudo], dim=1).requires_grad_()
    assert logits.softmax(dim=1)[:, -1].max() == 0
    assert logits.sigmoid()[:, -1].max() == 0
    losses = PixelLosses(SoftmaxLoss(weight=1.0, ignore_label=UNLABELLED), None)
    loss = losses(logits, torch.tensor([[[0, 1], [SEEN, UNLABELLED]]]))["loss_ce"]
    loss.backward()
    assert loss.isfinite()
    assert not logits.grad[:, -1].any()


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_through_pseudo_prototypes_is_a_choice(detach):
    given, module = inputs(1), learning("synthesizer", detach)
    pixel = outputs(module, given)
    pixel.logits[:, SEEN:].sum().backward()
    reached = [p.grad is not None for p in module.synthesizer.parameters()]
    assert all(reached) != detach
    assert any(reached) != detach
    assert given["features"].grad.abs().sum() > 0


def test_seen_prototypes_learn_from_text_alone_when_nothing_is_open():
    given, module = inputs(1), learning("synthesizer")
    given["targets"][:] = 0
    pixel = outputs(module, given)
    assert pixel.logits.shape[1] == SEEN
    pixel.loss_bce.backward()
    assert all(p.grad is not None for p in module.synthesizer.parameters())


def test_the_bias_shifts_the_logits_of_nel_alone():
    logits, labels = torch.randn(2, 4, 3, 3), torch.randint(-1, 4, (2, 6, 6))
    ce = SoftmaxLoss(weight=2.0, ignore_label=UNLABELLED)
    nel = NELLoss(
        focal_weight=1.0,
        focal_alpha=0.25,
        focal_gamma=2.0,
        dice_weight=1.0,
        ignore_label=UNLABELLED,
    )
    got = PixelLosses(ce, nel, nel_bias=-3.0)(logits, labels)
    enlarged = F.interpolate(logits, (6, 6), mode="bilinear")
    torch.testing.assert_close(got["loss_ce"], ce(enlarged, labels)["loss_ce"])
    torch.testing.assert_close(got["loss_nel"], sum(nel(enlarged - 3, labels).values()))
