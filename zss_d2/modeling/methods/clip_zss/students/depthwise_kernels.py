"""Triton kernels of depth-wise convolutions, channels of a pixel side by side.

Imported where a GPU has work for them only: Triton is no part of torch everywhere. With
``TRITON_INTERPRET=1`` they run on a CPU, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Pixels of a tile, high and wide: long in the direction of a strip, whose pixels it reads more than
# once.
_ROW, _COLUMN, _SQUARE = (1, 64), (16, 4), (8, 8)
# Pixels that one program sums up for the gradient of a weight, so many at a time.
_SUMMED, _AT_ONCE = 8192, 64


# Sizes that are multiples of 16 get no kernels of their own.
@triton.jit(do_not_specialize=["height", "width", "rows", "columns"])
def _forward(
    x,
    weight,
    bias,
    plus,
    out,
    height,
    width,
    channels,
    rows,
    columns,
    turned: tl.constexpr,
    has_bias: tl.constexpr,
    has_plus: tl.constexpr,
    tile_h: tl.constexpr,
    tile_w: tl.constexpr,
    tile_c: tl.constexpr,
):
    """A tile of out = conv(x, weight) + bias + plus, all of it (B, height, width, channels)."""
    across = tl.cdiv(width, tile_w)
    tile = tl.program_id(0)
    pixel = tl.arange(0, tile_h * tile_w)
    h = tile // across * tile_h + pixel // tile_w
    w = tile % across * tile_w + pixel % tile_w
    c = tl.program_id(1) * tile_c + tl.arange(0, tile_c)
    of_channel = c < channels
    image = tl.program_id(2).to(tl.int64) * height * width * channels
    place = ((h * width + w) * channels)[:, None] + c[None, :]
    seen_from = x + image + place
    total = tl.zeros((tile_h * tile_w, tile_c), dtype=tl.float32)
    # Not unrolled: one kernel for all sizes takes a second to compile, one for each a minute.
    for tap in range(rows * columns):
        i, j = tap // columns - rows // 2, tap % columns - columns // 2
        inside = (h + i >= 0) & (h + i < height) & (w + j >= 0) & (w + j < width)
        shift = (i * width + j) * channels
        seen = tl.load(seen_from + shift, mask=inside[:, None] & of_channel[None, :], other=0.0)
        number = rows * columns - 1 - tap if turned else tap
        factor = tl.load(weight + c * rows * columns + number, mask=of_channel, other=0.0)
        total += seen.to(tl.float32) * factor.to(tl.float32)[None, :]
    real = ((h < height) & (w < width))[:, None] & of_channel[None, :]
    if has_bias:
        total += tl.load(bias + c, mask=of_channel, other=0.0).to(tl.float32)[None, :]
    if has_plus:
        total += tl.load(plus + image + place, mask=real, other=0.0).to(tl.float32)
    tl.store(out + image + place, total.to(out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["pixels", "height", "width", "rows", "columns"])
def _weight_gradient(
    x,
    gradient,
    out,
    pixels,
    height,
    width,
    channels,
    rows,
    columns,
    summed: tl.constexpr,
    at_once: tl.constexpr,
    tile_c: tl.constexpr,
):
    """A part of the sum over all pixels for one tap: out (parts, taps, channels)."""
    part, tap = tl.program_id(2), tl.program_id(0)
    c = tl.program_id(1) * tile_c + tl.arange(0, tile_c)
    of_channel = c < channels
    i, j = tap // columns - rows // 2, tap % columns - columns // 2
    shift = (i * width + j) * channels
    total = tl.zeros((at_once, tile_c), dtype=tl.float32)
    for start in range(0, summed, at_once):
        p = part * summed + start + tl.arange(0, at_once)  # pixels of all images
        w = p % width + j
        h = p // width % height + i
        inside = (p < pixels) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        mask = inside[:, None] & of_channel[None, :]
        place = p.to(tl.int64)[:, None] * channels + c[None, :]
        seen = tl.load(x + place + shift, mask=mask, other=0.0)
        slope = tl.load(gradient + place, mask=mask, other=0.0)
        total += seen.to(tl.float32) * slope.to(tl.float32)
    place = (part * rows * columns + tap) * channels + c
    tl.store(out + place, tl.sum(total, axis=0), mask=of_channel)


def _channels_of_a_tile(channels: int) -> int:
    return 32 if channels <= 32 else 64


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    plus: Tensor | None = None,
    turned: bool = False,
) -> Tensor:
    """Depth-wise convolution that keeps the size.

    Args:
        x: (B, H, W, C), contiguous, less than 2^31 numbers an image.
        weight: (C, 1, rows, columns), contiguous; sides are odd.
        bias: (C,) or None.
        plus: as x, is added; or None.
        turned: with the kernel turned around, as gradients of x need it.
    """
    batch, height, width, channels = x.shape
    rows, columns = weight.shape[2:]
    tile_h, tile_w = _ROW if rows == 1 else _COLUMN if columns == 1 else _SQUARE
    tile_c = _channels_of_a_tile(channels)
    out = torch.empty_like(x)
    tiles = triton.cdiv(height, tile_h) * triton.cdiv(width, tile_w)
    with torch.cuda.device_of(x):
        _forward[(tiles, triton.cdiv(channels, tile_c), batch)](
            *(x, weight, bias, plus, out, height, width, channels, rows, columns),
            *(turned, bias is not None, plus is not None, tile_h, tile_w, tile_c),
        )
    return out


def weight_gradient(x: Tensor, gradient: Tensor, rows: int, columns: int) -> Tensor:
    """Gradient of the weight (C, 1, rows, columns), single precision, from that of the result."""
    batch, height, width, channels = x.shape
    pixels = batch * height * width
    parts = triton.cdiv(pixels, _SUMMED)
    tile_c = _channels_of_a_tile(channels)
    out = x.new_empty((parts, rows, columns, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _weight_gradient[(rows * columns, triton.cdiv(channels, tile_c), parts)](
            *(x, gradient, out, pixels, height, width, channels, rows, columns),
            *(_SUMMED, _AT_ONCE, tile_c),
        )
    return out.sum(dim=0).permute(2, 0, 1)[:, None]
