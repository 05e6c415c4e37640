"""From updated visual tokens and class embeddings to mask logits.

LDVC's sources only say that masks are made about as in ZegCLIP, so this is a choice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.modeling.attention import AttentionScores, dot_products
from zss_d2.modeling.methods.ldvc.settings import DecoderSettings


class CosineHead(nn.Module):
    """cos(v, t) / temperature + bias, both learned, the temperature through its logarithm."""

    def __init__(self, init_temperature: float, init_bias: float):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(init_temperature)))
        self.bias = nn.Parameter(torch.tensor(init_bias))

    def forward(self, visual: Tensor, classes: Tensor) -> Tensor:
        """Tokens (B, N, C) and classes (B, K, C) -> logits (B, K, N)."""
        cosine = dot_products(F.normalize(classes, dim=-1), F.normalize(visual, dim=-1))
        return cosine * torch.exp(-self.log_temperature) + self.bias

    def as_tokens_see(self, classes: Tensor) -> Tensor:
        """What the tokens are compared with (B, K, C): the classes (B, K, C) themselves."""
        return classes


class AttentionHead(nn.Module):
    """Attention scores before the softmax, averaged over heads, from projections of its own.

    ZegCLIP's masks with the roles of both sides exchanged. With class embeddings of unit norm the
    logits would start near zero and hardly learn, so they are normalised as the tokens are.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = AttentionScores(dim, num_heads)

    def forward(self, visual: Tensor, classes: Tensor) -> Tensor:
        """Tokens (B, N, C) and classes (B, K, C) -> logits (B, K, N)."""
        return self.attention.scores(visual, self.norm(classes)).transpose(1, 2)

    def as_tokens_see(self, classes: Tensor) -> Tensor:
        """What the tokens are compared with (B, K, C), see `AttentionScores.as_queries_see`."""
        return self.attention.as_queries_see(self.norm(classes))


def build_mask_head(dim: int, settings: DecoderSettings) -> nn.Module:
    """``MODEL.LDVC.MASK_HEAD``: "cosine" or "attention"."""
    if settings.mask_head == "cosine":
        return CosineHead(settings.init_temperature, settings.init_bias)
    return AttentionHead(dim, settings.num_heads)
