"""A residual attention block of open_clip, by another way than its own."""

from __future__ import annotations

from torch import Tensor, nn

from zss_d2.clip.dense_tokens.attention import attend, heads_of, project_out, with_residual


def apply_block(block: nn.Module, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """A residual attention block of open_clip on (B, N, C), with flash attention in testing too.

    ``nn.MultiheadAttention`` has a shortcut for testing that builds the whole matrix of N x N
    weights, for which a 512 px image takes a quarter longer, and in training puts the tokens before
    the batch, so that the first product becomes one of N small matrices.

    Args:
        mask: (N, N), added to the scores of every head.
    """
    if not isinstance(block.attn, nn.MultiheadAttention):
        return block(tokens) if mask is None else block(tokens, attn_mask=mask)
    update = attend(*heads_of(block, block.ln_1(tokens)), mask)
    return with_residual(block, tokens, project_out(block, update))
