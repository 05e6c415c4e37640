"""Attention of open_clip's residual blocks in other ways than they do it, as functions of tensors.

Queries, keys and values are (B, heads, N, d). No matrix of N x N weights is built but for the
window of NACLIP.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError


class Heads(NamedTuple):
    """Queries, keys and values of all tokens, (B, heads, N, d) each."""

    q: Tensor
    k: Tensor
    v: Tensor


def heads_of(block: nn.Module, entering: Tensor) -> Heads:
    """What the attention of a block makes of the tokens (B, N, C) that enter it, behind ``ln_1``.

    Raises:
        ZssError: it is another attention than torch's, such as one that normalises its queries.
    """
    attention = block.attn
    if not isinstance(attention, nn.MultiheadAttention):
        raise ZssError(
            f"MODEL.CLIP.DENSE_TOKENS works on torch's own attention; the tower has a "
            f"{type(attention).__name__}, use 'tokens'"
        )
    projected = F.linear(entering, attention.in_proj_weight, attention.in_proj_bias)
    split = projected.unflatten(2, (3, attention.num_heads, -1))  # (B, N, 3, heads, d)
    return Heads(*split.permute(2, 0, 3, 1, 4).unbind())


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
        bias: (N, N), added to the scores of every head.
    """
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))


def project_out(block: nn.Module, update: Tensor) -> Tensor:
    """The heads (B, heads, N, d) through the block's output projection -> (B, N, C)."""
    return block.attn.out_proj(update.transpose(1, 2).flatten(2))


def values(block: nn.Module, tokens: Tensor) -> Tensor:
    """Attention of every token (B, N, C) to itself only, without queries and keys.

    Attention mixes what is far apart, which image-level training asks for and dense prediction does
    not.
    """
    attention = block.attn
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    return attention.out_proj(F.linear(block.ln_1(tokens), weight, bias))


def with_residual(block: nn.Module, tokens: Tensor, update: Tensor) -> Tensor:
    """What a block of open_clip does with the result of its attention: residual, MLP, residual."""
    tokens = tokens + block.ls_1(update)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def gaussian_window(grid: tuple[int, int], sigma: float, prefix: int, like: Tensor) -> Tensor:
    """NACLIP's preference for neighbours (arXiv 2404.08181): exp(-d^2 / (2 sigma^2)).

    Args:
        grid: h, w.
        sigma: patches.
        prefix: tokens before the patches, such as CLS, whose rows and columns are 0.
        like: on whose device it is to be.

    Returns:
        (prefix + h * w, prefix + h * w), single precision, where d is the distance of two patches.
    """
    # A Gaussian of a distance in the plane is the product of those along both axes.
    rows, columns = (_gaussian_line(side, sigma, like) for side in grid)
    window = torch.einsum("ij,kl->ikjl", rows, columns).flatten(2).flatten(0, 1)
    return F.pad(window, (prefix, 0, prefix, 0))


def _gaussian_line(size: int, sigma: float, like: Tensor) -> Tensor:
    """exp(-(i - j)^2 / (2 sigma^2)): (size, size)."""
    place = torch.arange(size, device=like.device, dtype=torch.float32)
    return torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
