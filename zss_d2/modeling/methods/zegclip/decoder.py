"""Text-query decoder: class embeddings are the queries (ZegCLIP section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.attention import CrossAttention
from zss_d2.modeling.trace import Stage


class TextQueryLayer(nn.Module):
    """Cross-attention and FFN with post-norm residuals; no self-attention among the classes."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float, query_norm: bool):
        super().__init__()
        self.query_norm = nn.LayerNorm(dim) if query_norm else nn.Identity()
        self.attention = CrossAttention(dim, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn_dim, dim)
        )
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Update class embeddings (B, K, C) by dense tokens (B, N, C)."""
        queries = self.query_norm(queries)
        update = self.attention(queries, tokens)
        queries = self.attention_norm(queries + self.dropout(update))
        return self.ffn_norm(queries + self.dropout(self.ffn(queries)))


class TextQueryDecoder(nn.Module):
    """A stack of `TextQueryLayer`; the attention scores of the last one are the mask logits."""

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float,
        query_norm: bool = False,
        init_std: float = 0.0,
    ):
        """
        Args:
            num_layers, num_heads, ffn_dim, dropout: of the decoder.
            query_norm: a LayerNorm on the queries that enter a layer.
            init_std: standard deviation that all weights are drawn with, biases being 0; 0: layers
                start as torch's own do, each a copy of the first.

        Raises:
            ZssError: the standard deviation is negative.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            TextQueryLayer(dim, num_heads, ffn_dim, dropout, query_norm) for _ in range(num_layers)
        )
        if init_std < 0:
            raise ZssError(f"MODEL.ZEGCLIP.INIT_STD is {init_std}; give 0 or more")
        if init_std == 0:
            for layer in self.layers[1:]:
                layer.load_state_dict(self.layers[0].state_dict())
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)

    def forward(
        self, dense: Sequence[Tensor], classes: Tensor, every_layer: bool = False
    ) -> list[Tensor]:
        """Contract of `DecoderSegmentor`; reads the last of the dense tokens."""
        tokens, grid = _tokens(dense)
        logits = []
        for layer in self.layers[:-1]:
            if every_layer:
                logits.append(layer.attention.scores(layer.query_norm(classes), tokens))
            classes = layer(classes, tokens)
        last = self.layers[-1]
        logits.append(last.attention.scores(last.query_norm(classes), tokens))
        return [x.unflatten(2, grid) for x in logits]

    def trace(self, dense: Sequence[Tensor], classes: Tensor) -> list[Stage]:
        """Stages of `DecoderSegmentor`: what enters, then every layer.

        At a layer, ``classes`` are its own queries as the tokens see them: what the scores of the
        layer, and at the last one the masks, compare the tokens with. ``queries`` are what the
        layer makes of them, except at the last one, whose update nothing reads or trains.
        """
        tokens, grid = _tokens(dense)
        shown = tokens.transpose(1, 2).unflatten(2, grid)
        stages = [Stage("before the decoder", shown, classes, classes)]
        for number, layer in enumerate(self.layers, start=1):
            seen = layer.attention.as_memory_sees(layer.query_norm(classes))
            last = number == len(self.layers)
            classes = classes if last else layer(classes, tokens)
            stages.append(Stage(f"layer {number}", shown, seen, None if last else classes))
        return stages

    def attention_map(self, dense: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Attention of every class over the tokens in the last layer (B, K, h, w)."""
        tokens, grid = _tokens(dense)
        for layer in self.layers[:-1]:
            classes = layer(classes, tokens)
        last = self.layers[-1]
        return last.attention.weights(last.query_norm(classes), tokens).unflatten(2, grid)


def _tokens(dense: Sequence[Tensor]) -> tuple[Tensor, torch.Size]:
    """The last dense tokens (B, C, h, w) as unit vectors (B, N, C), and their grid."""
    return F.normalize(dense[-1], dim=1).flatten(2).transpose(1, 2), dense[-1].shape[2:]
