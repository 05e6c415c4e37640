"""The losses of ``MODEL.LOSS.NAME``: from logits of any size and labels to scalars."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.config.registered import find
from zss_d2.modeling.losses.cross_entropy import cross_entropy_sum
from zss_d2.modeling.losses.nel import nel_terms

LOSSES = Registry("LOSSES")
"""Config and ignore label -> a module as `NELLoss` is one: coarse logits and targets -> losses, and
``activate``, logits -> scores in 0..1. `enlarged` brings logits to the size of the targets."""


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
            logits: (B, K, h, w), enlarged bilinearly to the size of the targets.
            targets: (B, H, W), values 0..K-1 or the ignore label.

        Returns:
            ``loss_focal`` and ``loss_dice``, scalars.
        """
        if self.ignored_are_negatives:
            counted = torch.ones_like(targets, dtype=torch.bool)
        else:
            counted = targets != self.ignore_label
        terms = nel_terms(logits.float(), targets, counted, self.focal_alpha, self.focal_gamma)
        num_masks = _mean_over_ranks(terms.num_masks.float()).clamp(min=1)
        return {
            "loss_focal": self.focal_weight * terms.focal / num_masks,
            "loss_dice": self.dice_weight * terms.dice / num_masks,
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
        total = cross_entropy_sum(logits.float(), targets, self.ignore_label)
        labelled = (targets != self.ignore_label).sum().clamp(min=1)
        return {"loss_ce": self.weight * total / labelled}


@LOSSES.register()
def nel(cfg: CfgNode, ignore_label: int) -> NELLoss:
    """ZegCLIP's."""
    loss = cfg.MODEL.LOSS
    return NELLoss(
        focal_weight=loss.FOCAL_WEIGHT,
        focal_alpha=loss.FOCAL_ALPHA,
        focal_gamma=loss.FOCAL_GAMMA,
        dice_weight=loss.DICE_WEIGHT,
        ignore_label=ignore_label,
        ignored_are_negatives=loss.IGNORED == "negatives",
    )


@LOSSES.register()
def softmax(cfg: CfgNode, ignore_label: int) -> SoftmaxLoss:
    """Cross-entropy."""
    return SoftmaxLoss(weight=cfg.MODEL.LOSS.CE_WEIGHT, ignore_label=ignore_label)


def build_criterion(cfg: CfgNode, ignore_label: int) -> nn.Module:
    """The loss of ``cfg.MODEL.LOSS``, which also turns logits into scores.

    Raises:
        ZssError: no such loss is registered.
    """
    return find(LOSSES, cfg.MODEL.LOSS.NAME, "MODEL.LOSS.NAME")(cfg, ignore_label)


def enlarged(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (B, K, h, w) at the size of targets (B, H, W), bilinear, in single precision.

    For a loss that looks at whole maps; those here make them in parts.
    """
    return F.interpolate(logits.float(), size=targets.shape[-2:], mode="bilinear")


def _mean_over_ranks(value: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / comm.get_world_size()
