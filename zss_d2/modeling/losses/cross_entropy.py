"""Cross-entropy of coarse logits at the size of their labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.losses.chunks import blocks, chunk_bytes
from zss_d2.modeling.losses.upsampling import Upsampling
from zss_d2.modeling.precision import single_precision


def cross_entropy_sum(logits: Tensor, targets: Tensor, ignore_label: int) -> Tensor:
    """Sum over all pixels of -log softmax at the target.

    The enlarged logits are made in chunks of some rows of some images, all classes of each; the
    forward pass leaves nothing but the gradient at the size of the coarse logits.

    Args:
        logits: (B, K, h, w); enlarged bilinearly to the size of the targets.
        targets: (B, H, W), values 0..K-1 or the ignore label.

    Returns:
        scalar.
    """
    return _CrossEntropySum.apply(logits, targets, ignore_label)


class _CrossEntropySum(torch.autograd.Function):
    """`cross_entropy_sum`; the forward pass makes its gradient on the way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, ignore_label: int) -> Tensor:
        batch, number, *coarse = logits.shape
        _, height, width = targets.shape
        upsampling = Upsampling(coarse, (height, width), logits)
        total, slope = logits.new_zeros(()), logits.new_zeros(logits.shape)
        one = number * width * logits.element_size()  # bytes of an enlarged row, all classes
        at_once = chunk_bytes(batch * height * one, logits.device) // one
        with single_precision(logits.device):
            for images, rows in blocks(batch, height, at_once):
                some, labels = logits[images], targets[images, rows]
                z = upsampling.enlarge(some.flatten(0, 1), rows).unflatten(0, some.shape[:2])
                scores = z.log_softmax(dim=1)
                total += F.nll_loss(scores, labels, ignore_index=ignore_label, reduction="sum")
                labelled = (labels != ignore_label)[:, None]
                index = labels[:, None].where(labelled, 0)
                # Softmax less the one-hot target, where there is one.
                labelled = labelled.to(z)
                fine = scores.exp_().mul_(labelled).scatter_add_(1, index, -labelled)
                upsampling.add_adjoint(fine.flatten(0, 1), slope[images].view(-1, *coarse), rows)
                del z, scores, fine  # before the next ones are made
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None, None
