"""A student for testing alone: norms folded into convolutions, fewer and smaller operations."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zss_d2.modeling.methods.clip_zss.students.convolutions import (
    DepthwiseConv2d,
    PointwiseConv2d,
)

# Others, such as timm's, may do more than normalise.
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv2d, DepthwiseConv2d, PointwiseConv2d)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module in evaluation is a factor and a shift per channel, and nothing else."""
    return type(module) in _BATCH_NORMS and module.running_mean is not None


@torch.no_grad()
def folded(module: nn.Module) -> nn.Module:
    """A copy of ``module``, in evaluation mode, that gives the same up to rounding.

    In every `nn.Sequential` a batch norm behind a convolution becomes part of it; a module with a
    method ``folded_for_testing`` gives way to what that returns. The module itself stays as it is.
    """
    return _fold(copy.deepcopy(module).eval().requires_grad_(False))


def _fold(module: nn.Module) -> nn.Module:
    if hasattr(module, "folded_for_testing"):
        return module.folded_for_testing()
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    if type(module) is nn.Sequential:
        for index in range(1, len(module)):
            conv, norm = module[index - 1], module[index]
            if type(conv) in _CONVOLUTIONS and is_batch_norm(norm):
                module[index - 1] = fuse_conv_bn_eval(conv, norm)
                module[index] = nn.Identity()
    return module


def factor_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as factor * x + shift, both (C,)."""
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        return norm.weight * factor, norm.bias - norm.weight * factor * norm.running_mean
    return factor, -factor * norm.running_mean


def before(conv: nn.Conv2d, factor: Tensor, shift: Tensor) -> nn.Conv2d:
    """``conv``, 1 x 1 with a bias, of factor * x + shift; changes it."""
    weight = conv.weight[:, :, 0, 0]
    conv.bias += (weight * shift).sum(dim=1)
    conv.weight *= factor[:, None, None]
    return conv


def behind(conv: nn.Conv2d, factor: Tensor, shift: Tensor | float = 0.0) -> nn.Conv2d:
    """factor * ``conv`` + shift, of one with a bias; changes it."""
    conv.weight *= factor[:, None, None, None]
    conv.bias.copy_(factor * conv.bias + shift)
    return conv
