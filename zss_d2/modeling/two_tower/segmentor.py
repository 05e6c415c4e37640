"""What trained two-tower methods share: towers -> text adapter -> decoder -> logits -> loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.clip_segmentor import ClipSegmentor
from zss_d2.modeling.losses import build_criterion
from zss_d2.modeling.trace import Trace
from zss_d2.modeling.two_tower.adapter import build_text_adapter


class DecoderSegmentor(ClipSegmentor):
    """A method builds its decoder in `from_config` and adds nothing else.

    A decoder is called with dense tokens, (B, C, h, w) of every layer in
    ``MODEL.CLIP.FEATURE_LAYERS``, and class embeddings (B, K, C). It returns a list of mask logits
    (B, K, h, w): of its last layer, or with ``every_layer`` of all, the last one last. Its
    ``attention_map`` takes the same two and returns the cross-attention of its last layer, averaged
    over heads, (B, K, h, w); its ``trace`` returns the `Stage`s from what enters it on.
    """

    relies_on = ("MODEL.LOSS.NAME",)

    @configurable
    def __init__(
        self,
        *,
        descriptor: nn.Module,
        decoder: nn.Module,
        criterion: nn.Module,
        aux_weight: float = 0.0,
        **parts: Any,
    ):
        """
        Args:
            descriptor: text adapter, embeddings T (K, C) and CLS V_g (B, C) -> T_new (B, K, C).
            decoder: see above.
            criterion: logits (B, K, h, w), which it enlarges, and targets (B, H, W) -> dict of loss
                scalars.
            aux_weight: of the criterion on the logits of each earlier layer.
            parts: arguments of `ClipSegmentor`.
        """
        super().__init__(**parts)
        self.descriptor = descriptor
        self.decoder = decoder
        self.criterion = criterion
        self.aux_weight = aux_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        return {
            **parts,
            "descriptor": build_text_adapter(cfg, parts["image_encoder"].embed_dim),
            "criterion": build_criterion(cfg, parts["ignore_label"]),
            "aux_weight": cfg.MODEL.LOSS.AUX_WEIGHT,
        }

    def embedded_logits(self, images: Tensor, text: Tensor) -> Tensor:
        return self._decode(images, text, every_layer=False)[-1]

    def activate(self, logits: Tensor) -> Tensor:
        return self.criterion.activate(logits)

    def training_outputs(self, images: Tensor) -> list[Tensor]:
        """Mask logits (B, K, h, w) of the layers that losses are taken on, the last one last."""
        text = self.text_embeddings(self.loss_classes)
        return self._decode(images, text, every_layer=self.aux_weight > 0)

    def training_logits(self, outputs: Sequence[Tensor]) -> Tensor:
        return outputs[-1]

    def losses(self, outputs: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """The criterion's losses and, for the earlier layers together, ``loss_aux``."""
        *earlier, last = (self.criterion(logits, targets) for logits in outputs)
        if earlier:
            last["loss_aux"] = self.aux_weight * sum(sum(losses.values()) for losses in earlier)
        return last

    @torch.no_grad()
    def attention_map(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) -> cross-attention of the last layer (B, K, h, w)."""
        features, text = self.encode(self._pad(list(images)), class_names)
        return self.decoder.attention_map(features.layers, self.descriptor(text, features.cls))

    @torch.no_grad()
    def trace(self, images: Tensor, class_names: Sequence[str]) -> Trace:
        """Tokens and class embeddings of normalised images (B, 3, H, W) along the decoder."""
        padded = self._pad(list(images))
        features, text = self.encode(padded, class_names)
        classes = self.descriptor(text, features.cls)
        stages = self.decoder.trace(features.layers, classes)
        return Trace(text, stages, tuple(padded.shape[2:]))

    def _decode(self, images: Tensor, text: Tensor, every_layer: bool) -> list[Tensor]:
        features: ImageFeatures = self.image_encoder(images)
        classes = self.descriptor(text, features.cls)
        return self.decoder(features.layers, classes, every_layer=every_layer)
