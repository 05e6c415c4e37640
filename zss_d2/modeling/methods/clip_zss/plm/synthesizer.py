"""The synthesizer (PLM): centroids of the student's features become class prototypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.modeling.attention import CrossAttention
from zss_d2.modeling.methods.clip_zss.plm.kmeans import count, sum_by_index


def mask_centroids(features: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Mean feature over every mask of F.

    Args:
        features: (B, C, h, w).
        labels: (B, h, w), 0..number-1, or negative for no mask.

    Returns:
        Centroids (B, number, C), zero for absent masks; which are present (B, number), bool.
    """
    flat = features.flatten(2).transpose(1, 2)
    # What has no mask goes to an extra row that is cut off.
    index = labels.flatten(1)
    index = index.where(index >= 0, number)
    sizes = count(index, number + 1)[:, :number]
    sums = sum_by_index(flat, index, number + 1)[:, :number]
    return sums / sizes.clamp(min=1)[..., None], sizes > 0


class SynthesizerLayer(nn.Module):
    """Cross-attention to the memory, then an FFN; post-norm residuals, no dropout."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int):
        super().__init__()
        self.attention = CrossAttention(dim, num_heads)
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU(), nn.Linear(ffn_dim, dim))
        self.ffn_norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, memory: Tensor, present: Tensor | None = None) -> Tensor:
        queries = self.attention_norm(queries + self.attention(queries, memory, present))
        return self.ffn_norm(queries + self.ffn(queries))


class Synthesizer(nn.Module):
    """Transformer decoder: mask centroids are the queries, CLIP's CLS tokens are keys and values.

    The queries do not attend to each other (unknown for the paper), so neither the number nor the
    order of masks matters and absent ones need no mask.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, ffn_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(
            SynthesizerLayer(dim, num_heads, ffn_dim) for _ in range(num_layers)
        )

    def forward(
        self,
        centroids: Tensor,
        cls: Tensor,
        local: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            centroids: (B, L, C).
            cls: CLS tokens of the images, (B, C).
            local: those of their regions, (B, R, C), keys and values beside the first (C2S).
            present: (B, R) bool, regions that there are.

        Returns:
            Prototypes (B, L, C).
        """
        memory, mask = cls[:, None].to(centroids), None
        if local is not None:
            memory = torch.cat([memory, local.to(centroids)], dim=1)
            mask = F.pad(present, (1, 0), value=True)
        for layer in self.layers:
            centroids = layer(centroids, memory, mask)
        return centroids


def prototype_loss(prototypes: Tensor, text: Tensor, present: Tensor, scale: float) -> Tensor:
    """BCE of sigmoid(scale * cos(P_seen, T_seen)) against "is this class".

    Args:
        prototypes: (B, K, C), of each seen class in each image.
        text: (K, C), unit norm.
        present: (B, K) bool, prototypes that count.

    Returns:
        scalar, the mean over the present prototypes and the K classes; 0 without any.
    """
    logits = scale * F.normalize(prototypes.float(), dim=2) @ text.T  # (B, K, K)
    own = torch.eye(len(text), device=text.device).expand_as(logits)
    loss = F.binary_cross_entropy_with_logits(logits, own, reduction="none").mean(dim=2)
    return (loss * present).sum() / present.sum().clamp(min=1)
