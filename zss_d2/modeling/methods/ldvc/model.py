"""The LDVC meta-architecture: towers -> text adapter -> visual-query decoder -> mask logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from zss_d2.clip import ImageEncoder, TextEncoder, build_clip_towers
from zss_d2.modeling.losses import NELLoss
from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.relation_descriptor import RelationDescriptor
from zss_d2.modeling.segmentor import ZeroShotSegmentor


@META_ARCH_REGISTRY.register()
class LDVC(ZeroShotSegmentor):
    """Visual tokens are updated toward class embeddings, which stay fixed as anchors.

    ``forward`` and its inputs are those of `ZeroShotSegmentor`.
    """

    @configurable
    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        templates: Sequence[str],
        descriptor: RelationDescriptor,
        decoder: nn.Module,
        criterion: nn.Module,
        **contract: Any,
    ):
        """
        Args:
            image_encoder: images -> CLS token and dense tokens (C channels).
            text_encoder: class names -> unit-norm embeddings T (K, C).
            templates: sentences with one ``{}`` for the class name.
            descriptor: text adapter, (T, V_g) -> T_new (B, K, C).
            decoder: (V_l, T_new) -> logits (B, K, h, w).
            criterion: (logits, targets) -> dict of loss scalars.
            contract: arguments of `ZeroShotSegmentor`.
        """
        super().__init__(**contract)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.templates = tuple(templates)
        self.descriptor = descriptor
        self.decoder = decoder
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        towers = build_clip_towers(
            cfg.MODEL.CLIP.NAME,
            cfg.MODEL.CLIP.PRETRAINED,
            prompt_length=cfg.MODEL.VISUAL_PROMPTS.LENGTH,
            prompt_dropout=cfg.MODEL.VISUAL_PROMPTS.DROPOUT,
        )
        dim = towers.image.embed_dim
        return {
            **cls.contract_from_config(cfg, towers.pixel_mean, towers.pixel_std),
            "size_divisibility": towers.image.patch_size[0],
            "image_encoder": towers.image,
            "text_encoder": towers.text,
            "templates": cfg.MODEL.CLIP.TEMPLATES,
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
                ignore_label=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            ),
        }

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        features = self.image_encoder(images)
        text = self.text_encoder.classifier(class_names, self.templates)
        return self.decoder(features.dense, self.descriptor(text, features.cls))

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = self.class_logits(images, self.train_classes)
        return self.criterion(self.upsample(logits, targets.shape[-2:]), targets)
