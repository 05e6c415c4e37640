"""Dense tokens that change the last block alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zss_d2.clip.dense_tokens.attention import (
    attend,
    gaussian_window,
    heads_of,
    project_out,
    values,
    with_residual,
)
from zss_d2.clip.dense_tokens.registry import DENSE_TOKENS, LastBlock, SeenBlock, with_settings
from zss_d2.errors import ZssError

_SIGMA = "MODEL.CLIP.DENSE.NACLIP_SIGMA"
_WEIGHT = "MODEL.CLIP.DENSE.RESCLIP_WEIGHT"
_BLOCKS = "MODEL.CLIP.DENSE.RESCLIP_BLOCKS"


@DENSE_TOKENS.register()
def tokens(last: LastBlock) -> Tensor:
    """The output of the block."""
    return last.patches(last.outputs)


@DENSE_TOKENS.register()
def value(last: LastBlock) -> Tensor:
    """The block's value projection alone (MaskCLIP, arXiv 2112.01071, section 3.2)."""
    return values(last.block, last.patches(last.inputs))


@DENSE_TOKENS.register()
def value_residual(last: LastBlock) -> Tensor:
    """The value projection in the place of attention, then the rest of the block."""
    patches = last.patches(last.inputs)
    return with_residual(last.block, patches, values(last.block, patches))


@dataclass(frozen=True)
class SelfSelfAttention:
    """Attention of queries to queries, or keys to keys, in the last block.

    Attributes:
        terms: of "q" and "k", whose attention maps softmax(z z^T / sqrt(d)) are added up.
        sigma: of NACLIP's window, in patches, added before the softmax; None: there is none.
        whole_block: residual, MLP and residual follow; else the projected attention is the result.
        weight: l of ResCLIP's cross-correlation part (arXiv 2411.15851): the map A
            becomes 2 ((1 - l) A + l mean(attention of ``blocks``)); 0: it stays A.
        blocks: counted from 0 or, negative, from the last.
    """

    terms: str
    sigma: float | None = None
    whole_block: bool = False
    weight: float = 0.0
    blocks: Sequence[int] = ()

    def seen_blocks(self, layers: int) -> tuple[int, ...]:
        """The ``blocks``, if they count; raises ZssError for others, and for one twice."""
        if not self.weight:
            return ()
        if not all(-layers <= block < layers for block in self.blocks):
            raise ZssError(
                f"{_BLOCKS} is {list(self.blocks)}, but the tower has {layers} blocks; name some "
                f"of 0..{layers - 1}, or of -{layers}..-1 from the end"
            )
        found = tuple(block % layers for block in self.blocks)
        if len(set(found)) < len(found):
            raise ZssError(
                f"{_BLOCKS} is {list(self.blocks)}, which names a block of the {layers} twice; "
                "leave one of them out"
            )
        return found

    def __call__(self, last: LastBlock) -> Tensor:
        heads = heads_of(last.block, last.block.ln_1(last.inputs))
        window = None
        if self.sigma is not None:
            prefix = last.inputs.shape[1] - last.grid[0] * last.grid[1]
            window = gaussian_window(last.grid, self.sigma, prefix, last.inputs)
        found = (getattr(heads, term) for term in self.terms)
        update = sum(attend(z, z, heads.v, window) for z in found)
        if self.weight:
            # The maps are never built: what they make of the values is mixed in their place.
            earlier = torch.stack([_attended(seen, heads.v) for seen in last.seen]).mean(dim=0)
            update = 2 * torch.lerp(update, earlier, self.weight)
        update = last.patches(project_out(last.block, update))
        if not self.whole_block:
            return update
        return with_residual(last.block, last.patches(last.inputs), update)


def _attended(seen: SeenBlock, v: Tensor) -> Tensor:
    """What the attention map of another block makes of values (B, heads, N, d)."""
    heads = heads_of(seen.block, seen.block.ln_1(seen.inputs))
    return attend(heads.q, heads.k, v)


@DENSE_TOKENS.register()
@with_settings(_WEIGHT, _BLOCKS)
def sclip(weight: float, blocks: Sequence[int]) -> SelfSelfAttention:
    """Correlative self-attention (SCLIP, arXiv 2312.01597): of q and k, a sum."""
    return SelfSelfAttention("qk", whole_block=True, weight=weight, blocks=blocks)


@DENSE_TOKENS.register()
@with_settings(_WEIGHT, _BLOCKS)
def clearclip(weight: float, blocks: Sequence[int]) -> SelfSelfAttention:
    """Attention of q to q, neither residual nor MLP (ClearCLIP, arXiv 2407.12442)."""
    return SelfSelfAttention("q", weight=weight, blocks=blocks)


@DENSE_TOKENS.register()
@with_settings(_SIGMA, _WEIGHT, _BLOCKS)
def naclip(sigma: float, weight: float, blocks: Sequence[int]) -> SelfSelfAttention:
    """Attention of k to k that prefers neighbours, neither residual nor MLP (NACLIP, arXiv
    2404.08181)."""
    return SelfSelfAttention("k", sigma=sigma, weight=weight, blocks=blocks)
