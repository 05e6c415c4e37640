"""Training losses."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn
from torch.nn import functional as F


def one_hot_masks(targets: Tensor, num_classes: int, ignore_label: int) -> tuple[Tensor, Tensor]:
    """Labels (B, H, W) -> class masks (B, K, H, W) and validity (B, 1, H, W), as floats."""
    valid = targets != ignore_label
    classes = torch.arange(num_classes, device=targets.device).view(1, -1, 1, 1)
    return (targets[:, None] == classes).float(), valid[:, None].float()


def focal_term(logits: Tensor, masks: Tensor, valid: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss: mean over the valid pixels of a map, summed over images and classes.

    Args:
        logits, masks: (B, K, H, W).
        valid: (B, 1, H, W).

    Returns:
        scalar.
    """
    loss = sigmoid_focal_loss(logits, masks, alpha=alpha, gamma=gamma, reduction="none") * valid
    pixels = valid.sum(dim=(2, 3)).clamp(min=1)  # (B, 1)
    return (loss.sum(dim=(2, 3)) / pixels).sum()


def dice_term(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1), summed over the classes present in each image.

    Shapes as in `focal_term`. Plain p, not its square, in the denominator, as ZegCLIP's code has.
    """
    p = logits.sigmoid() * valid
    overlap = (p * masks).sum(dim=(2, 3))  # (B, K)
    area = masks.sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (p.sum(dim=(2, 3)) + area + 1)
    return (dice * (area > 0)).sum()


class NELLoss(nn.Module):
    """Non-mutually exclusive loss of ZegCLIP: every class is its own binary mask.

    focal (all classes) + dice (classes present), both divided by the number of ground-truth class
    masks, averaged over the ranks, at least 1.
    """

    def __init__(
        self,
        *,
        focal_weight: float,
        focal_alpha: float,
        focal_gamma: float,
        dice_weight: float,
        ignore_label: int,
        ignored_are_negatives: bool = False,
    ):
        """
        Args:
            ignored_are_negatives: ignored pixels show none of the classes, as in ZegCLIP's released
                code; by default they take no part.
        """
        super().__init__()
        self.focal_weight = focal_weight
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.dice_weight = dice_weight
        self.ignore_label = ignore_label
        self.ignored_are_negatives = ignored_are_negatives

    def activate(self, logits: Tensor) -> Tensor:
        """Scores in 0..1 of logits (B, K, H, W), in place."""
        return logits.sigmoid_()

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """
        Args:
            logits: (B, K, H, W).
            targets: (B, H, W), values 0..K-1 or the ignore label.

        Returns:
            ``loss_focal`` and ``loss_dice``, scalars.
        """
        logits = logits.float()
        masks, valid = one_hot_masks(targets, logits.shape[1], self.ignore_label)
        if self.ignored_are_negatives:
            valid = torch.ones_like(valid)
        num_masks = _mean_over_ranks(masks.amax(dim=(2, 3)).sum()).clamp(min=1)
        focal = focal_term(logits, masks, valid, self.focal_alpha, self.focal_gamma)
        return {
            "loss_focal": self.focal_weight * focal / num_masks,
            "loss_dice": self.dice_weight * dice_term(logits, masks, valid) / num_masks,
        }


class SoftmaxLoss(nn.Module):
    """Cross-entropy over mutually exclusive classes, the mean over the labelled pixels."""

    def __init__(self, *, weight: float, ignore_label: int):
        super().__init__()
        self.weight = weight
        self.ignore_label = ignore_label

    def activate(self, logits: Tensor) -> Tensor:
        """Scores in 0..1 of logits (B, K, H, W)."""
        return logits.softmax(dim=1)

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Arguments as of `NELLoss`; returns ``loss_ce``, a scalar."""
        total = F.cross_entropy(
            logits.float(), targets, ignore_index=self.ignore_label, reduction="sum"
        )
        labelled = (targets != self.ignore_label).sum().clamp(min=1)
        return {"loss_ce": self.weight * total / labelled}


def build_criterion(cfg: CfgNode, ignore_label: int) -> NELLoss | SoftmaxLoss:
    """The loss of ``cfg.MODEL.LOSS``, which also turns logits into scores."""
    loss = cfg.MODEL.LOSS
    if loss.NAME == "softmax":
        return SoftmaxLoss(weight=loss.CE_WEIGHT, ignore_label=ignore_label)
    return NELLoss(
        focal_weight=loss.FOCAL_WEIGHT,
        focal_alpha=loss.FOCAL_ALPHA,
        focal_gamma=loss.FOCAL_GAMMA,
        dice_weight=loss.DICE_WEIGHT,
        ignore_label=ignore_label,
        ignored_are_negatives=loss.IGNORED == "negatives",
    )


def _mean_over_ranks(value: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / comm.get_world_size()
