"""Local-consensus transformer decoder: dense visual tokens are the queries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.modeling.methods.ldvc.route_attention import RouteAttention


class LocalConsensusLayer(nn.Module):
    """Route attention among visual tokens, cross-attention to the classes, FFN; pre-norm residuals.

    Which layer holds what, and in what order, is not in the public sources; see defaults.yaml.
    """

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, dropout: float, windows: int, topk: int
    ):
        super().__init__()
        self.route_norm = nn.LayerNorm(dim)
        self.route_attention = RouteAttention(dim, num_heads, windows, topk)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(ffn_dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, visual: Tensor, classes: Tensor) -> Tensor:
        """Update visual tokens (B, h, w, C) toward class embeddings (B, K, C)."""
        visual = visual + self.dropout(self.route_attention(self.route_norm(visual)))
        queries = self.cross_norm(visual).flatten(1, 2)  # (B, h * w, C)
        update, _ = self.cross_attention(queries, classes, classes, need_weights=False)
        visual = visual + self.dropout(update).view_as(visual)
        return visual + self.dropout(self.ffn(self.ffn_norm(visual)))


class LocalConsensusDecoder(nn.Module):
    """A stack of `LocalConsensusLayer` and the mask logits cos(v, t) / temperature + bias.

    Temperature and bias are learned, the temperature through its logarithm.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float,
        route_windows: int,
        route_topk: int,
        init_temperature: float,
        init_bias: float,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            LocalConsensusLayer(dim, num_heads, ffn_dim, dropout, route_windows, route_topk)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(init_temperature)))
        self.bias = nn.Parameter(torch.tensor(init_bias))

    def forward(self, dense: Tensor, classes: Tensor) -> Tensor:
        """Dense features (B, C, h, w) and class embeddings (B, K, C) -> logits (B, K, h, w)."""
        visual = dense.permute(0, 2, 3, 1)
        for layer in self.layers:
            visual = layer(visual, classes)
        visual = F.normalize(self.norm(visual), dim=-1)
        cosine = torch.einsum("bhwc,bkc->bkhw", visual, F.normalize(classes, dim=-1))
        return cosine * torch.exp(-self.log_temperature) + self.bias
