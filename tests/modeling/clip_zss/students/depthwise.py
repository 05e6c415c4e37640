"""Depth-wise convolutions by Triton beside torch's own, on a GPU or in Triton's interpreter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.students.convolutions import depthwise


def check_depthwise(
    kernel: tuple[int, int], shape: tuple[int, ...], device: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Result and gradients of a convolution with bias and a sum, and torch's in double precision.

    Args:
        kernel: rows and columns.
        shape: (B, C, H, W) of the maps.
    """
    torch.manual_seed(0)
    channels = shape[1]
    drawn = {
        "x": torch.randn(shape),
        "weight": torch.randn(channels, 1, *kernel),
        "bias": torch.randn(channels),
        "plus": torch.randn(shape),
    }
    slope = torch.randn(shape).to(dtype)
    results = []
    for double in (False, True):
        kind = torch.float64 if double else dtype
        tensors = {
            name: x.to(dtype).to(device, kind, copy=True).requires_grad_()
            for name, x in drawn.items()
        }
        x, weight, bias, plus = tensors.values()
        if double:
            padding = (kernel[0] // 2, kernel[1] // 2)
            out = F.conv2d(x, weight, bias, padding=padding, groups=channels) + plus
        else:
            out = depthwise(x, weight, bias, plus)
        out.backward(slope.to(out))
        gradients = {f"gradient of {name}": x.grad.double() for name, x in tensors.items()}
        results.append({"result": out.detach().double(), **gradients})
    return results[0], results[1]


if __name__ == "__main__":  # with TRITON_INTERPRET=1, see test_convolutions.py
    from zss_d2.modeling.methods.clip_zss.students import depthwise_kernels

    depthwise_kernels._SUMMED = 64  # several parts, and no long loop
    for kernel, shape in {
        (3, 3): (2, 5, 7, 9),
        (1, 7): (1, 3, 2, 70),
        (7, 1): (1, 3, 20, 3),
        (5, 5): (1, 66, 3, 4),
    }.items():
        found, expected = check_depthwise(kernel, shape, "cpu", torch.float32)
        for name, value in found.items():
            error = (value - expected[name]).abs().max() / expected[name].abs().max()
            assert error < 1e-6, f"{kernel}, {name}: {error}"
    print("all equal")
