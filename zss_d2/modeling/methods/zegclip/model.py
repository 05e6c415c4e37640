"""The ZegCLIP meta-architecture."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from zss_d2.clip.towers import joint_dim
from zss_d2.modeling.attention import check_heads
from zss_d2.modeling.methods.zegclip.decoder import TextQueryDecoder
from zss_d2.modeling.two_tower.segmentor import DecoderSegmentor


@META_ARCH_REGISTRY.register()
class ZegCLIP(DecoderSegmentor):
    """Class embeddings are updated toward visual tokens: the direction that LDVC reverses."""

    # The last layer gives masks only, so nothing reaches what would update its queries.
    find_unused_parameters = True
    relies_on = (*DecoderSegmentor.relies_on, "MODEL.ZEGCLIP.NUM_HEADS", "MODEL.ZEGCLIP.QUERY_NORM")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        settings, dim = cfg.MODEL.ZEGCLIP, joint_dim(cfg.MODEL.CLIP.NAME)
        check_heads(settings.NUM_HEADS, dim, "MODEL.ZEGCLIP.NUM_HEADS")
        parts = super().from_config(cfg)
        decoder = TextQueryDecoder(
            dim=dim,
            num_layers=settings.NUM_LAYERS,
            num_heads=settings.NUM_HEADS,
            ffn_dim=settings.FFN_DIM,
            dropout=settings.DROPOUT,
            query_norm=settings.QUERY_NORM,
            init_std=settings.INIT_STD,
        )
        return {**parts, "decoder": decoder}
