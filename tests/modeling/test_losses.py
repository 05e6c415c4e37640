import math

import pytest
import torch

from zss_d2.modeling.losses import (
    NELLoss,
    SoftmaxLoss,
    dice_term,
    focal_term,
    one_hot_masks,
)

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


def test_masks_by_hand():
    masks, valid = one_hot_masks(torch.tensor([[[0, 1, IGNORE]]]), 2, IGNORE)
    assert masks.tolist() == [[[[1, 0, 0]], [[0, 1, 0]]]]
    assert valid.tolist() == [[[[1, 1, 0]]]]


def test_focal_by_hand():
    """At logit 0 every pixel has p = 0.5: 0.25 ln 2 times alpha or 1 - alpha."""
    masks, valid = one_hot_masks(torch.tensor([[[0, 1]]]), 2, IGNORE)
    value = focal_term(torch.zeros(1, 2, 1, 2), masks, valid, alpha=0.25, gamma=2.0)
    assert value.item() == pytest.approx(2 * 0.25 * math.log(2) * (0.25 + 0.75) / 2)


def test_dice_by_hand():
    """p = 0.5 everywhere, one of two pixels is class 0: 1 - (2 * 0.5 + 1) / (1 + 1 + 1)."""
    masks, valid = one_hot_masks(torch.tensor([[[0, 1]]]), 3, IGNORE)
    value = dice_term(torch.zeros(1, 3, 1, 2), masks, valid)
    assert value.item() == pytest.approx(2 / 3)  # two classes present, the third adds nothing


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
    masks = torch.stack([targets == k for k in range(3)], dim=1).float()
    everywhere = torch.ones(2, 1, 4, 4)
    count = masks.amax(dim=(2, 3)).sum()
    focal = focal_term(logits, masks, everywhere, 0.25, 2.0) / count
    torch.testing.assert_close(got["loss_focal"], focal)
    torch.testing.assert_close(got["loss_dice"], dice_term(logits, masks, everywhere) / count)
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
