import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss

from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.losses.nel import nel_terms

IGNORE = 255


def criterion(**changes) -> NELLoss:
    settings = {"focal_weight": 1.0, "focal_alpha": 0.25, "focal_gamma": 2.0, "dice_weight": 1.0}
    return NELLoss(**settings | changes, ignore_label=IGNORE)


def slow_nel(logits, targets, alpha, gamma):
    """One pixel at a time, in plain Python."""
    focal = dice = num_masks = 0.0
    for scores, labels in zip(logits, targets, strict=True):
        for k, class_map in enumerate(scores):
            terms, overlap, area, mass = [], 0.0, 0.0, 0.0
            for x, y in zip(class_map.flatten().tolist(), labels.flatten().tolist(), strict=True):
                if y == IGNORE:
                    continue
                p = 1 / (1 + math.exp(-x))
                hit = y == k
                pt = p if hit else 1 - p
                weight = alpha if hit else 1 - alpha
                terms.append(-weight * (1 - pt) ** gamma * math.log(pt))
                overlap, area, mass = overlap + p * hit, area + hit, mass + p
            focal += sum(terms) / max(len(terms), 1)
            if area:
                num_masks += 1
                dice += 1 - (2 * overlap + 1) / (mass + area + 1)
    return focal / max(num_masks, 1), dice / max(num_masks, 1)


def one_hot(targets, number):
    """Masks (B, number, H, W) and which pixels count (B, 1, H, W)."""
    masks = torch.stack([targets == k for k in range(number)], dim=1)
    return masks.double(), (targets != IGNORE)[:, None].double()


def test_focal_and_dice_by_hand():
    """At logit 0 every pixel has p = 0.5, so focal is 0.25 ln 2 times alpha or 1 - alpha.

    One pixel is class 0, the other class 1; the dice of both is 1 - (2 * 0.5 + 1) / (1 + 1 + 1).
    The third class is absent and adds nothing to it.
    """
    targets = torch.tensor([[[0, 1]]])
    terms = nel_terms(torch.zeros(1, 3, 1, 2), targets, targets < 3, alpha=0.25, gamma=2.0)
    assert terms.focal.item() == pytest.approx(
        0.25 * math.log(2) * (2 * 0.25 + 2 * 0.75 + 2 * 0.75) / 2
    )
    assert terms.dice.item() == pytest.approx(2 / 3)
    assert terms.num_masks.item() == 2


def test_focal_equals_fvcore_on_one_hot_masks():
    logits = 3 * torch.randn(2, 4, 5, 6, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 5, 6))
    targets[:, 1:3] = IGNORE
    masks, valid = one_hot(targets, 4)
    each = sigmoid_focal_loss(logits, masks, alpha=0.3, gamma=1.5, reduction="none") * valid
    terms = nel_terms(logits, targets, targets != IGNORE, alpha=0.3, gamma=1.5)
    torch.testing.assert_close(terms.focal, each.sum() / 18)


@pytest.mark.parametrize("counted", ["labelled", "all", "some"])
def test_gradients_in_float64(counted):
    """Unlabelled pixels may count (as negatives) or not; so may, in principle, labelled ones."""
    logits = 2 * torch.randn(2, 3, 3, 4, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 3, 4))
    targets[:, 0] = IGNORE
    take = {"labelled": targets != IGNORE, "all": targets >= 0, "some": torch.rand(2, 3, 4) < 0.5}
    torch.autograd.gradcheck(
        lambda x: nel_terms(x, targets, take[counted], alpha=0.25, gamma=2.0)[:2],
        logits.requires_grad_(),
    )


@pytest.mark.parametrize("height", [-200.0, 200.0])
def test_extreme_logits_stay_finite(height):
    logits = torch.full((1, 3, 2, 2), height, requires_grad=True)
    losses = criterion()(logits, torch.tensor([[[0, 1], [2, IGNORE]]]))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert logits.grad.isfinite().all()


def test_against_the_slow_reference():
    logits = 2 * torch.randn(3, 4, 5, 6)
    targets = torch.randint(0, 4, (3, 5, 6))
    targets[torch.rand(3, 5, 6) < 0.3] = IGNORE
    targets[2] = 1
    losses = criterion()(logits, targets)
    focal, dice = slow_nel(logits, targets, 0.25, 2.0)
    assert losses["loss_focal"].item() == pytest.approx(focal, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(dice, rel=1e-5)


def test_weights_scale_their_term():
    logits, targets = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    one, scaled = criterion()(logits, targets), criterion(focal_weight=100.0)(logits, targets)
    assert scaled["loss_focal"].item() == pytest.approx(100 * one["loss_focal"].item(), rel=1e-5)
    assert scaled["loss_dice"] == one["loss_dice"]


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    targets = torch.randint(0, 3, (1, 4, 4))
    targets[0, 1:3, 1:3] = IGNORE
    sum(criterion()(logits, targets).values()).backward()
    zero = (logits.grad == 0).all(dim=1)
    assert torch.equal(zero, targets == IGNORE)


def test_an_image_without_labels_costs_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    losses = criterion()(logits, torch.full((1, 4, 4), IGNORE))
    sum(losses.values()).backward()
    assert all(value.item() == 0 for value in losses.values())
    assert not logits.grad.any()


def test_a_good_prediction_costs_less():
    targets = torch.randint(0, 3, (2, 8, 8))
    good = 4 * (torch.nn.functional.one_hot(targets, 3).permute(0, 3, 1, 2) - 0.5)
    for name in ("loss_focal", "loss_dice"):
        assert criterion()(good, targets)[name] < 0.3 * criterion()(-good, targets)[name]


def test_ignored_as_negatives_equals_a_class_nobody_asked_for():
    """Unlabelled pixels then count like pixels of one more class whose own map is left out."""
    logits = torch.randn(2, 3, 4, 4)
    targets = torch.randint(0, 3, (2, 4, 4))
    targets[:, 1:3] = IGNORE
    got = criterion(ignored_are_negatives=True)(logits, targets)
    masks, _ = one_hot(targets, 3)
    each = sigmoid_focal_loss(logits, masks.float(), alpha=0.25, gamma=2.0, reduction="none")
    p = logits.sigmoid()
    overlap, mass, area = (x.sum(dim=(2, 3)) for x in (p * masks, p, masks))
    number = (area > 0).sum().item()
    assert got["loss_focal"].item() == pytest.approx(each.sum().item() / 16 / number, rel=1e-5)
    dice = (1 - (2 * overlap + 1) / (mass + area + 1))[area > 0]
    assert got["loss_dice"].item() == pytest.approx(dice.mean().item(), rel=1e-5)
    assert got["loss_focal"] != criterion()(logits, targets)["loss_focal"]


def test_softmax_loss_by_hand():
    """Two labelled pixels, ln 3 each for equal logits; the ignored one takes no part."""
    loss = SoftmaxLoss(weight=2.0, ignore_label=IGNORE)
    logits = torch.zeros(1, 3, 1, 3)
    logits[0, :, 0, 2] = torch.tensor([9.0, -9.0, 0.0])
    losses = loss(logits, torch.tensor([[[0, 1, IGNORE]]]))
    assert losses["loss_ce"].item() == pytest.approx(2 * math.log(3))
    torch.testing.assert_close(loss.activate(logits).sum(dim=1), torch.ones(1, 1, 3))


def test_softmax_loss_without_labels_is_zero():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = SoftmaxLoss(weight=1.0, ignore_label=IGNORE)
    value = loss(logits, torch.full((1, 4, 4), IGNORE))["loss_ce"]
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()
