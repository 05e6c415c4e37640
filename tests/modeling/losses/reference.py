"""The loss as it was made before it was made in parts: on whole maps, through autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.losses.nel import NELTerms

# Logit of a class that is out of the question: probability and cost are 0.
_NEVER = -1e4


def nel_terms(
    logits: Tensor, targets: Tensor, counted: Tensor, alpha: float, gamma: float
) -> NELTerms:
    """Sigmoid focal loss and dice loss, every class being its own binary mask m.

    As `zss_d2.modeling.losses.nel.nel_terms`, for logits of the size of the targets.

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
