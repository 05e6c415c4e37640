"""The MaskCLIP-style meta-architecture: dense tokens times text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.clip_segmentor import ClipSegmentor
from zss_d2.modeling.precision import in_single_precision


@META_ARCH_REGISTRY.register()
class MaskCLIP(ClipSegmentor):
    """Every dense token takes the class whose text embedding is nearest. Nothing is trained."""

    @configurable
    def __init__(self, *, temperature: float, **parts: Any):
        """
        Args:
            temperature: of the softmax over classes.
            parts: arguments of `ClipSegmentor`.
        """
        super().__init__(**parts)
        self.temperature = temperature

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "temperature": cfg.MODEL.MASKCLIP.TEMPERATURE}

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        features, text = self.encode(images, class_names)
        return _cosines(features.dense, text) / self.temperature

    def activate(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)

    def training_outputs(self, images: Tensor) -> Any:
        raise ZssError("MaskCLIP has nothing to train; use --eval-only")


@in_single_precision
def _cosines(dense: Tensor, text: Tensor) -> Tensor:
    """Dense tokens (B, C, h, w), unit-norm embeddings (K, C) -> (B, K, h, w)."""
    return torch.einsum("bchw,kc->bkhw", F.normalize(dense, dim=1), text)
