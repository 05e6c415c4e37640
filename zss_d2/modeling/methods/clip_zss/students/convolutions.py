"""Convolutions of a student, by the quickest way of the device; weights and results are torch's.

On CUDA maps lie with the channels of a pixel side by side, as its matrix products want them. There
cuDNN takes a slow path for depth-wise convolutions, so that they are Triton's, and 1 x 1 ones are
plain products.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.utils.weights import is_traced

logger = logging.getLogger(__name__)


@functools.cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton builds and runs kernels for a device; where it fails to, a warning says why.

    It does not come with every torch, wants a GPU of 2017 or later, and a C compiler with Python's
    headers.
    """
    if device.type != "cuda":
        return False
    try:
        _try_triton(device)
    except Exception as error:  # of any of these, and of whatever a later version raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        logger.warning(
            "no Triton on %s (%s): depth-wise convolutions of MSCAN are torch's, which are slower",
            device,
            reason,
        )
        return False
    return True


def _try_triton(device: torch.device) -> None:
    from zss_d2.modeling.methods.clip_zss.students import depthwise_kernels

    one = torch.ones(1, 1, 1, 1, device=device)
    depthwise_kernels.convolve(one, one)


def memory_format(device: torch.device) -> torch.memory_format:
    """How maps of a student of these convolutions lie on a device."""
    on_pixels = device.type == "cpu" or triton_works(device)
    return torch.channels_last if on_pixels else torch.contiguous_format


class DepthwiseConv2d(nn.Conv2d):
    """Depth-wise, of stride 1, that keeps the size: odd kernel sides."""

    def __init__(self, dim: int, kernel: tuple[int, int]):
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(dim, dim, kernel, padding=padding, groups=dim)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), and ``plus`` (B, C, H, W) added."""
        if _is_for_triton(x):
            return depthwise(x, self.weight, self.bias, plus)
        result = super().forward(x)
        return result if plus is None else plus + result


class PointwiseConv2d(nn.Conv2d):
    """1 x 1."""

    def __init__(self, before: int, dim: int, bias: bool = True):
        super().__init__(before, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H, W)."""
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1 x 1 convolution of x (B, C, H, W) with a weight (D, C, 1, 1) -> (B, D, H, W)."""
    if x.device.type != "cuda" or not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
    """Depth-wise convolution by Triton, plus ``plus``; what it adds up is in single precision.

    Args:
        x, plus: (B, C, H, W); channels last or copied so.
        weight: (C, 1, rows, columns), odd sides.
        bias: (C,).
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, plus = x.to(dtype), None if plus is None else plus.to(dtype)
    return _Depthwise.apply(x, weight, bias, plus)


def _is_for_triton(x: Tensor) -> bool:
    return triton_works(x.device) and not is_traced()


def _on_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


class _Depthwise(torch.autograd.Function):
    """`depthwise` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None
    ) -> Tensor:
        from zss_d2.modeling.methods.clip_zss.students import depthwise_kernels as kernels

        # As operations of torch read them, so that a graph holds on to them, see `tensors_read`.
        taps, offset = weight.detach(), None if bias is None else bias.detach()
        pixels, taps = _on_pixels(x), taps.contiguous()
        ctx.save_for_backward(pixels, taps)
        more = None if plus is None else _on_pixels(plus)
        return kernels.convolve(pixels, taps, offset, more).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from zss_d2.modeling.methods.clip_zss.students import depthwise_kernels as kernels

        pixels, taps = ctx.saved_tensors
        slopes = _on_pixels(gradient)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = kernels.convolve(slopes, taps, turned=True).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            to_weight = kernels.weight_gradient(pixels, slopes, *taps.shape[2:]).to(taps)
        if ctx.needs_input_grad[2]:
            to_bias = slopes.sum(dim=(0, 1, 2), dtype=torch.float32).to(taps)
        return to_x, to_weight, to_bias, gradient if ctx.needs_input_grad[3] else None
