"""The LDVC meta-architecture: towers -> text adapter -> visual-query decoder -> mask logits."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.two_tower.segmentor import DecoderSegmentor


@META_ARCH_REGISTRY.register()
class LDVC(DecoderSegmentor):
    """Visual tokens are updated toward class embeddings, which stay fixed as anchors."""

    relies_on = (
        *DecoderSegmentor.relies_on,
        *(f"MODEL.LDVC.{key}" for key in ("NUM_HEADS", "NORM", "ORDER", "MASK_HEAD")),
        *(f"MODEL.LDVC.{key}" for key in ("IDENTITY_VALUES", "ROUTE_WINDOWS", "ROUTE_TOPK")),
    )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        settings = cfg.MODEL.LDVC
        decoder = LocalConsensusDecoder(
            dim=parts["image_encoder"].embed_dim,
            num_features=len(cfg.MODEL.CLIP.FEATURE_LAYERS),
            num_layers=settings.NUM_LAYERS,
            order=settings.ORDER,
            num_heads=settings.NUM_HEADS,
            ffn_dim=settings.FFN_DIM,
            dropout=settings.DROPOUT,
            norm=settings.NORM,
            layer_scale=settings.LAYER_SCALE,
            identity_values=settings.IDENTITY_VALUES,
            route_windows=settings.ROUTE_WINDOWS,
            route_topk=settings.ROUTE_TOPK,
            route_lepe=settings.ROUTE_LEPE,
            mask_head=settings.MASK_HEAD,
            init_temperature=settings.INIT_TEMPERATURE,
            init_bias=settings.INIT_BIAS,
        )
        return {**parts, "decoder": decoder}
