"""What becomes of the patch tokens in the last block of the image tower.

``MODEL.CLIP.DENSE_TOKENS`` names one of `DENSE_TOKENS`. A further mode is a function of `LastBlock`
that somebody registers under its name::

    @DENSE_TOKENS.register()
    def self_similarity(last: LastBlock) -> Tensor:
        ...
"""

from __future__ import annotations

from typing import NamedTuple

from detectron2.utils.registry import Registry
from torch import Tensor, nn
from torch.nn import functional as F

DENSE_TOKENS = Registry("DENSE_TOKENS")
"""`LastBlock` -> patch tokens (B, h * w, C), before the tower's last LayerNorm and projection."""


class LastBlock(NamedTuple):
    """The last residual attention block of open_clip's ViT, and the tokens on both sides of it."""

    block: nn.Module
    inputs: Tensor  # (B, 1 + P + h * w, C): CLS, prompts, patches row by row
    outputs: Tensor  # (B, 1 + P + h * w, C)
    grid: tuple[int, int]  # h, w

    def patches(self, tokens: Tensor) -> Tensor:
        """The patch tokens (B, h * w, C) among all."""
        return tokens[:, -self.grid[0] * self.grid[1] :]


@DENSE_TOKENS.register()
def tokens(last: LastBlock) -> Tensor:
    """The output of the block."""
    return last.patches(last.outputs)


@DENSE_TOKENS.register()
def value(last: LastBlock) -> Tensor:
    """The block's value projection alone (MaskCLIP, arXiv 2112.01071, section 3.2)."""
    return _values(last.block, last.patches(last.inputs))


@DENSE_TOKENS.register()
def value_residual(last: LastBlock) -> Tensor:
    """The value projection in the place of attention, then the rest of the block."""
    patches = last.patches(last.inputs)
    return with_residual(last.block, patches, _values(last.block, patches))


def with_residual(block: nn.Module, tokens: Tensor, update: Tensor) -> Tensor:
    """What a block of open_clip does with the result of its attention: residual, MLP, residual."""
    tokens = tokens + block.ls_1(update)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _values(block: nn.Module, tokens: Tensor) -> Tensor:
    """Attention of every token (B, N, C) to itself only, without queries and keys.

    Attention mixes what is far apart, which image-level training asks for and dense prediction does
    not.
    """
    attention = block.attn
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    return attention.out_proj(F.linear(block.ln_1(tokens), weight, bias))
