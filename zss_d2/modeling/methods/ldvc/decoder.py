"""Local-consensus transformer decoder: dense visual tokens are the queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zss_d2.errors import ZssError
from zss_d2.modeling.attention import CrossAttention
from zss_d2.modeling.methods.ldvc.mask_head import build_mask_head
from zss_d2.modeling.methods.ldvc.route_attention import RouteAttention
from zss_d2.modeling.methods.ldvc.settings import DecoderSettings
from zss_d2.modeling.trace import Stage


class Residual(nn.Module):
    """visual + dropout(step(norm(visual), ...)), or with post-norm norm(visual + ...)."""

    def __init__(self, step: nn.Module, dim: int, settings: DecoderSettings):
        super().__init__()
        self.step = step
        self.norm = nn.LayerNorm(dim)
        self.post_norm = settings.norm == "post"
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, visual: Tensor, *others: Tensor) -> Tensor:
        update = self.dropout(self.step(visual if self.post_norm else self.norm(visual), *others))
        return self.norm(visual + update) if self.post_norm else visual + update


class LocalConsensusLayer(nn.Module):
    """Route attention among visual tokens, cross-attention to the classes and FFN, as residuals.

    Which of them a layer of the paper holds, and in what order, is not in the public sources.
    """

    def __init__(self, dim: int, settings: DecoderSettings):
        super().__init__()
        self.steps = nn.ModuleDict(
            {
                step: Residual(_build_step(step, dim, settings), dim, settings)
                for step in settings.order
            }
        )

    def forward(self, visual: Tensor, classes: Tensor, until: str | None = None) -> Tensor:
        """Update visual tokens (B, h, w, C) toward class embeddings (B, K, C).

        Args:
            until: stop before this step.
        """
        for name, step in self.steps.items():
            if name == until:
                break
            if name == "cross":
                visual = step(visual.flatten(1, 2), classes).view_as(visual)
            else:
                visual = step(visual)
        return visual


class LocalConsensusDecoder(nn.Module):
    """A stack of `LocalConsensusLayer` and a mask head; without layers, the mask head alone.

    The class embeddings are anchors: nothing here changes them.
    """

    def __init__(self, dim: int, settings: DecoderSettings, num_features: int = 1):
        """
        Args:
            dim: C of the tokens and the class embeddings.
            num_features: dense tokens of so many CLIP layers come in and are joined linearly.
        """
        super().__init__()
        self.join = nn.Linear(num_features * dim, dim) if num_features > 1 else nn.Identity()
        self.layers = nn.ModuleList(
            LocalConsensusLayer(dim, settings) for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.mask_head = build_mask_head(dim, settings)

    def forward(
        self, dense: Sequence[Tensor], classes: Tensor, every_layer: bool = False
    ) -> list[Tensor]:
        """Contract of `DecoderSegmentor`."""
        visual = self._tokens(dense)
        logits = []
        for index, layer in enumerate(self.layers):
            visual = layer(visual, classes)
            if every_layer and index + 1 < len(self.layers):
                logits.append(self._logits(visual, classes))
        return [*logits, self._logits(visual, classes)]

    def trace(self, dense: Sequence[Tensor], classes: Tensor) -> list[Stage]:
        """Stages of `DecoderSegmentor`: what enters, then every layer as the mask head sees it.

        That is, after the decoder's last norm, which belongs to the mask head. Without layers, the
        second stage is that norm alone.
        """
        visual = self._tokens(dense)
        stages = [Stage("before the decoder", visual.permute(0, 3, 1, 2), classes, classes)]
        anchors = self.mask_head.as_tokens_see(classes)
        for number, layer in enumerate(self.layers, start=1):
            visual = layer(visual, classes)
            stages.append(Stage(f"layer {number}", self.norm(visual).permute(0, 3, 1, 2), anchors))
        if not self.layers:
            stages.append(Stage("norm", self.norm(visual).permute(0, 3, 1, 2), anchors))
        return stages

    def attention_map(self, dense: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Attention of every token over the classes in the last layer (B, K, h, w).

        Raises:
            ZssError: there is no cross-attention.
        """
        if not self.layers or "cross" not in self.layers[-1].steps:
            raise ZssError("this LDVC has no cross-attention; see MODEL.LDVC.NUM_LAYERS and ORDER")
        visual = self._tokens(dense)
        for layer in self.layers[:-1]:
            visual = layer(visual, classes)
        visual = self.layers[-1](visual, classes, until="cross")
        cross = self.layers[-1].steps["cross"]
        queries = visual if cross.post_norm else cross.norm(visual)
        weights = cross.step.weights(queries.flatten(1, 2), classes)  # (B, N, K)
        return weights.transpose(1, 2).unflatten(2, visual.shape[1:3])

    def _tokens(self, dense: Sequence[Tensor]) -> Tensor:
        """Dense tokens (B, C, h, w) of each layer -> (B, h, w, C)."""
        return self.join(torch.cat(list(dense), dim=1).permute(0, 2, 3, 1))

    def _logits(self, visual: Tensor, classes: Tensor) -> Tensor:
        logits = self.mask_head(self.norm(visual).flatten(1, 2), classes)
        return logits.unflatten(2, visual.shape[1:3])


def _build_step(name: str, dim: int, settings: DecoderSettings) -> nn.Module:
    if name == "route":
        return RouteAttention(
            dim,
            settings.num_heads,
            settings.route_windows,
            settings.route_topk,
            settings.route_lepe,
        )
    if name == "cross":
        return CrossAttention(dim, settings.num_heads, settings.dropout)
    return nn.Sequential(
        nn.Linear(dim, settings.ffn_dim),
        nn.GELU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.ffn_dim, dim),
    )
