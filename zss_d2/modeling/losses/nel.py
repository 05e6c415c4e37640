"""Sigmoid focal loss and dice loss of coarse logits at the size of their labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.losses.chunks import blocks, chunk_bytes
from zss_d2.modeling.losses.upsampling import Upsampling
from zss_d2.modeling.precision import single_precision

# What is taken from the logit of a class that is out of the question: probability and cost are 0.
_NEVER = 1e4


class NELTerms(NamedTuple):
    """Scalars, summed over images and classes."""

    focal: Tensor  # -weight (1 - p_t)^gamma ln p_t, each image's mean over the pixels that count
    dice: Tensor  # 1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1), of the classes present
    num_masks: Tensor  # classes present


def nel_terms(
    logits: Tensor, targets: Tensor, counted: Tensor, alpha: float, gamma: float
) -> NELTerms:
    """Sigmoid focal loss and dice loss, every class being its own binary mask m.

    Dice has plain p, not its square, in the denominator, as in ZegCLIP's code. With 156 classes the
    enlarged logits of a batch would be the largest tensor of a training step by far: they are made
    in chunks of some (image, class) pairs, and the forward pass leaves nothing but the gradients of
    both terms at the size of the coarse logits.

    Args:
        logits: (B, K, h, w); enlarged bilinearly to the size of the targets.
        targets: (B, H, W); a value outside 0..K-1 belongs to none of the classes.
        counted: (B, H, W) bool, pixels that take part.
        alpha, gamma: of the focal loss; masks weigh alpha, the rest 1 - alpha.
    """
    number = logits.shape[1]
    labelled = (targets >= 0) & (targets < number) & counted
    index = targets.where(labelled, number)  # of no class: behind the last one
    area = logits.new_zeros(len(logits), number + 1)
    area = area.scatter_add_(1, index.flatten(1), labelled.flatten(1).to(area))[:, :number]
    focal, dice = _FocalAndDice.apply(logits, index, counted, area, alpha, gamma)
    return NELTerms(focal, dice, (area > 0).sum())


class _FocalAndDice(torch.autograd.Function):
    """The first two of `NELTerms`; the forward pass makes their gradients on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        index: Tensor,
        counted: Tensor,
        area: Tensor,
        alpha: float,
        gamma: float,
    ) -> tuple[Tensor, Tensor]:
        """Index (B, H, W): the class of a pixel, or K; area (B, K): pixels of every class."""
        batch, number, *coarse = logits.shape
        upsampling = Upsampling(coarse, index.shape[1:], logits)
        focal, dice = logits.new_zeros(2, batch)
        slopes = logits.new_zeros(2, *logits.shape)  # of focal and of dice
        one = index[0].numel() * logits.element_size()  # bytes of an enlarged map
        at_once = chunk_bytes(batch * number * one, logits.device) // one
        with single_precision(logits.device):
            for images, classes in blocks(batch, number, at_once):
                some = logits[images, classes]
                z = upsampling.enlarge(some.flatten(0, 1)).unflatten(0, some.shape[:2])
                terms = _terms(
                    z,
                    index[images] - classes.start,
                    counted[images, None].to(z),
                    area[images, classes],
                    alpha,
                    gamma,
                )
                focal[images] += terms.focal
                dice[images] += terms.dice
                for slope, fine in zip(slopes, terms.slopes, strict=True):
                    # A view: a block is of whole images, or of one.
                    into = slope[images, classes].view(-1, *coarse)
                    upsampling.add_adjoint(fine.flatten(0, 1), into)
                del z, terms, fine  # before the next ones are made
        pixels = counted.sum(dim=(1, 2)).clamp(min=1)
        slopes[0] /= pixels[:, None, None, None]
        ctx.save_for_backward(slopes)
        return (focal / pixels).sum(), dice.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_focal: Tensor, grad_dice: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes[0] * grad_focal + slopes[1] * grad_dice, None, None, None, None, None


class _Terms(NamedTuple):
    """Of some classes in some images, (B, K, H, W)."""

    focal: Tensor  # (B,), the sum over classes and pixels
    dice: Tensor  # (B,)
    slopes: tuple[Tensor, Tensor]  # of both to every logit


def _terms(
    z: Tensor, index: Tensor, weights: Tensor, area: Tensor, alpha: float, gamma: float
) -> _Terms:
    """Both terms of logits z (B, K, H, W), which are overwritten.

    A pixel has one class at most, so all but one of its logits are of wrong classes: they are the
    bulk, done in place, and those of right ones are taken out before and put in again.

    Args:
        index: (B, H, W), the class of a pixel; outside of 0..K-1: none of them.
        weights: (B, 1, H, W), 1 for pixels that count, else 0.
        area: (B, K), pixels of every class.
    """
    inside = ((index >= 0) & (index < z.shape[1]))[:, None].to(z)
    index = index.clamp(0, z.shape[1] - 1)[:, None]
    right = z.gather(1, index)  # (B, 1, H, W)
    z.scatter_(1, index, right - _NEVER * inside)

    p = z.sigmoid().mul_(weights)
    cost = F.softplus(z).mul_(weights)
    power = torch.pow(p, gamma, out=z).mul_(1 - alpha)
    mass = p.sum(dim=(2, 3))  # (B, K)
    product = power * cost
    focal = product.sum(dim=(2, 3)).sum(dim=1)
    rest = product.fill_(1).sub_(p)
    # Slopes p^gamma (gamma (1 - p) softplus(z) + p) and p (1 - p).
    by_focal = torch.addcmul(p, rest, cost, value=gamma, out=cost).mul_(power)
    by_dice = rest.mul_(p)

    hit, miss = right.sigmoid() * inside, torch.sigmoid(-right) * inside
    cost, power = F.softplus(-right) * inside, alpha * miss**gamma
    focal += (power * cost).sum(dim=(1, 2, 3))
    by_focal.scatter_add_(1, index, -power * (gamma * hit * cost + miss))

    overlap = p.zero_().scatter_(1, index, hit).sum(dim=(2, 3))
    total = mass + overlap + area + 1
    ratio, present = (2 * overlap + 1) / total, area > 0
    of_mass = ratio / total * present  # slopes of dice to the sum of p of wrong classes
    of_overlap = of_mass - 2 / total * present  # and of the right one
    by_dice.mul_(of_mass[..., None, None])
    of_pixel = of_overlap.gather(1, index.flatten(1)).view_as(hit)
    by_dice.scatter_add_(1, index, of_pixel * hit * miss)
    return _Terms(focal, ((1 - ratio) * present).sum(dim=1), (by_focal, by_dice))
