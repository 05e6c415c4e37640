"""The LDVC meta-architecture: towers -> text adapter -> visual-query decoder -> mask logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from zss_d2.modeling.clip_segmentor import ClipSegmentor
from zss_d2.modeling.losses import NELLoss
from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.relation_descriptor import RelationDescriptor


@META_ARCH_REGISTRY.register()
class LDVC(ClipSegmentor):
    """Visual tokens are updated toward class embeddings, which stay fixed as anchors."""

    @configurable
    def __init__(
        self, *, descriptor: nn.Module, decoder: nn.Module, criterion: nn.Module, **parts: Any
    ):
        """
        Args:
            descriptor: text adapter, embeddings T (K, C) and CLS V_g (B, C) -> T_new (B, K, C).
            decoder: dense tokens V_l (B, C, h, w) and T_new -> logits (B, K, h, w).
            criterion: logits (B, K, H, W) and targets (B, H, W) -> dict of loss scalars.
            parts: arguments of `ClipSegmentor`.
        """
        super().__init__(**parts)
        self.descriptor = descriptor
        self.decoder = decoder
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        dim = parts["image_encoder"].embed_dim
        return {
            **parts,
            "descriptor": RelationDescriptor(dim),
            "decoder": LocalConsensusDecoder(
                dim=dim,
                num_layers=cfg.MODEL.LDVC.NUM_LAYERS,
                num_heads=cfg.MODEL.LDVC.NUM_HEADS,
                ffn_dim=cfg.MODEL.LDVC.FFN_DIM,
                dropout=cfg.MODEL.LDVC.DROPOUT,
                route_windows=cfg.MODEL.LDVC.ROUTE_WINDOWS,
                route_topk=cfg.MODEL.LDVC.ROUTE_TOPK,
                init_temperature=cfg.MODEL.LDVC.INIT_TEMPERATURE,
                init_bias=cfg.MODEL.LDVC.INIT_BIAS,
            ),
            "criterion": NELLoss(
                focal_weight=cfg.MODEL.LOSS.FOCAL_WEIGHT,
                focal_alpha=cfg.MODEL.LOSS.FOCAL_ALPHA,
                focal_gamma=cfg.MODEL.LOSS.FOCAL_GAMMA,
                dice_weight=cfg.MODEL.LOSS.DICE_WEIGHT,
                ignore_label=parts["ignore_label"],
            ),
        }

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        features, text = self.encode(images, class_names)
        return self.decoder(features.dense, self.descriptor(text, features.cls))

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = self.class_logits(images, self.train_classes)
        return self.criterion(self.upsample(logits, targets.shape[-2:]), targets)
