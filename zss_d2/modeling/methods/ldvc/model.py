"""The LDVC meta-architecture: towers -> text adapter -> visual-query decoder -> mask logits."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from zss_d2.clip.towers import joint_dim
from zss_d2.modeling.attention import check_heads
from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.methods.ldvc.settings import DecoderSettings
from zss_d2.modeling.two_tower.segmentor import DecoderSegmentor


@META_ARCH_REGISTRY.register()
class LDVC(DecoderSegmentor):
    """Visual tokens are updated toward class embeddings, which stay fixed as anchors."""

    relies_on = (
        *DecoderSegmentor.relies_on,
        *(f"MODEL.LDVC.{key}" for key in ("NUM_HEADS", "NORM", "ORDER", "MASK_HEAD")),
        *(f"MODEL.LDVC.{key}" for key in ("ROUTE_WINDOWS", "ROUTE_TOPK")),
    )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        settings = DecoderSettings.from_config(cfg.MODEL.LDVC)
        dim = joint_dim(cfg.MODEL.CLIP.NAME)
        if settings.has_heads:
            check_heads(settings.num_heads, dim, "MODEL.LDVC.NUM_HEADS")
        parts = super().from_config(cfg)
        decoder = LocalConsensusDecoder(dim, settings, len(cfg.MODEL.CLIP.FEATURE_LAYERS))
        return {**parts, "decoder": decoder}
