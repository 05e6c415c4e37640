"""Learned tokens in the inputs of a tower's layers."""

from __future__ import annotations

import torch
from torch import Tensor


def with_prompts(tokens: Tensor, prompts: Tensor, replaced: int) -> Tensor:
    """Prompts behind the first token, in the place of those of the layer before.

    Args:
        tokens: (B, 1 + ``replaced`` + N, C).
        prompts: (B, length, C).

    Returns:
        (B, 1 + length + N, C).
    """
    # Gradients of slices would be tensors of zeros as large as all tokens, to be added up.
    sizes = [size for size in (1, replaced, tokens.shape[1] - 1 - replaced) if size]
    first, *_, others = tokens.split(sizes, dim=1)
    return torch.cat([first, prompts.to(tokens), others], dim=1)
