"""Training losses."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn


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
    masks, averaged over the ranks, at least 1. Ignored pixels take no part.
    """

    def __init__(
        self,
        *,
        focal_weight: float,
        focal_alpha: float,
        focal_gamma: float,
        dice_weight: float,
        ignore_label: int,
    ):
        super().__init__()
        self.focal_weight = focal_weight
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.dice_weight = dice_weight
        self.ignore_label = ignore_label

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
        num_masks = _mean_over_ranks(masks.amax(dim=(2, 3)).sum()).clamp(min=1)
        focal = focal_term(logits, masks, valid, self.focal_alpha, self.focal_gamma)
        return {
            "loss_focal": self.focal_weight * focal / num_masks,
            "loss_dice": self.dice_weight * dice_term(logits, masks, valid) / num_masks,
        }


def _mean_over_ranks(value: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / comm.get_world_size()
