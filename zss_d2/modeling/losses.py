"""Training losses; ``MODEL.LOSS.NAME`` names one of `LOSSES`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.config.registered import find

LOSSES = Registry("LOSSES")
"""Config and ignore label -> a module as `NELLoss` is one: logits and targets -> loss scalars, and
``activate``, logits -> scores in 0..1."""

# Logit of a class that is out of the question: probability and cost are 0.
_NEVER = -1e4


class NELTerms(NamedTuple):
    """Scalars, summed over images and classes."""

    focal: Tensor  # -weight (1 - p_t)^gamma ln p_t, each image's mean over the pixels that count
    dice: Tensor  # 1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1), of the classes present
    num_masks: Tensor  # classes present


def nel_terms(
    logits: Tensor, targets: Tensor, counted: Tensor, alpha: float, gamma: float
) -> NELTerms:
    """Sigmoid focal loss and dice loss, every class being its own binary mask m.

    Dice has plain p, not its square, in the denominator, as in ZegCLIP's code. One-hot masks are
    never built: with 100 classes the logits are the largest tensors of a training step, and with
    fvcore's focal loss the backward pass would hold nine of that size instead of two.

    Args:
        logits: (B, K, H, W).
        targets: (B, H, W); a value outside 0..K-1 belongs to none of the classes.
        counted: (B, H, W) bool, pixels that take part.
        alpha, gamma: of the focal loss; masks weigh alpha, the rest 1 - alpha.
    """
    labelled = (targets >= 0) & (targets < logits.shape[1]) & counted
    index = targets.where(labelled, 0)[:, None]
    right = logits.gather(1, index)  # (B, 1, H, W)
    keep = counted & ~labelled  # class 0 is a wrong one here, like all others
    wrong = logits.detach().masked_fill(~counted[:, None], _NEVER)
    wrong.scatter_(1, index, right.detach().where(keep[:, None], _NEVER))
    right = right[:, 0]

    costs, mass = _CostOfWrong.apply(logits, wrong, gamma)  # (B, K) each
    p_right = right.sigmoid() * labelled
    hits = alpha * (1 - p_right) ** gamma * F.softplus(-right) * labelled
    pixels = counted.sum(dim=(1, 2)).clamp(min=1)
    focal = (((1 - alpha) * costs.sum(dim=1) + hits.sum(dim=(1, 2))) / pixels).sum()

    zeros, flat = logits.new_zeros(logits.shape[:2]), index.flatten(1)
    overlap = zeros.scatter_add(1, flat, p_right.flatten(1))  # (B, K)
    area = zeros.scatter_add(1, flat, labelled.flatten(1).to(logits))
    dice = 1 - (2 * overlap + 1) / (mass + overlap + area + 1)
    present = area > 0
    return NELTerms(focal, (dice * present).sum(), present.sum())


class _CostOfWrong(torch.autograd.Function):
    """sum(p^gamma softplus(z)) and sum(p) over the pixels of maps z (B, K, H, W): (B, K) each.

    z are the logits, with `_NEVER` at some places, where the slope is 0; all that is held for the
    backward pass.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, z: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z)
        ctx.gamma = gamma
        p = z.sigmoid()
        mass = p.sum(dim=(2, 3))
        return p.pow_(gamma).mul_(F.softplus(z)).sum(dim=(2, 3)), mass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_cost: Tensor, grad_mass: Tensor) -> tuple[Tensor, None, None]:
        """Slopes p^gamma (gamma (1 - p) softplus(z) + p) and p (1 - p)."""
        (z,) = ctx.saved_tensors
        p = z.sigmoid()
        rest = 1 - p
        slope = F.softplus(z).mul_(rest).mul_(ctx.gamma).add_(p)
        slope.mul_(p**ctx.gamma).mul_(grad_cost[..., None, None])
        return slope.add_(rest.mul_(p).mul_(grad_mass[..., None, None])), None, None


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
        total = F.cross_entropy(
            logits.float(), targets, ignore_index=self.ignore_label, reduction="sum"
        )
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


def _mean_over_ranks(value: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / comm.get_world_size()
