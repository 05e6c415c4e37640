"""What the methods share that keep both CLIP towers at test time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from zss_d2.clip import ImageEncoder, ImageFeatures, TextEncoder, build_clip_towers
from zss_d2.clip.templates import template_set
from zss_d2.modeling.segmentor import ZeroShotSegmentor


class ClipSegmentor(ZeroShotSegmentor):
    """`ZeroShotSegmentor` with both towers. A method extends `from_config` with its own parts."""

    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        templates: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        **contract: Any,
    ):
        """
        Args:
            image_encoder: images -> CLS token and dense tokens (C channels).
            text_encoder: class names -> unit-norm embeddings (K, C).
            templates: sentences with one ``{}`` for the class name.
            synonyms: further names of some classes.
            contract: arguments of `ZeroShotSegmentor`.
        """
        super().__init__(**contract)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.templates = tuple(templates)
        self.synonyms = dict(synonyms or {})

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        towers = build_clip_towers(
            cfg.MODEL.CLIP.NAME,
            cfg.MODEL.CLIP.PRETRAINED,
            prompt_length=cfg.MODEL.VISUAL_PROMPTS.LENGTH,
            prompt_dropout=cfg.MODEL.VISUAL_PROMPTS.DROPOUT,
            prompt_projection=cfg.MODEL.VISUAL_PROMPTS.PROJECTION,
            prompt_norm=cfg.MODEL.VISUAL_PROMPTS.NORM,
            dense_tokens=cfg.MODEL.CLIP.DENSE_TOKENS,
            feature_layers=cfg.MODEL.CLIP.FEATURE_LAYERS,
        )
        prompts = cfg.MODEL.TEXT_PROMPTS
        if prompts.LENGTH > 0:
            towers.text.add_prompts(prompts.LENGTH, prompts.INIT, prompts.DROPOUT)
        return {
            **cls.contract_from_config(cfg, towers.pixel_mean, towers.pixel_std),
            "size_divisibility": towers.image.patch_size[0],
            "image_encoder": towers.image,
            "text_encoder": towers.text,
            **class_wording(cfg),
        }

    def encode(self, images: Tensor, class_names: Sequence[str]) -> tuple[ImageFeatures, Tensor]:
        """Both towers: tokens of normalised images (B, 3, H, W), embeddings (K, C) of the names."""
        text = self.text_encoder.classifier(class_names, self.templates, self.synonyms)
        return self.image_encoder(images), text


def class_wording(cfg: CfgNode) -> dict[str, Any]:
    """What class names are embedded with: ``templates`` and ``synonyms``, as ``MODEL.CLIP`` says.

    Synonyms are those of the classes of ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
    """
    clip = cfg.MODEL.CLIP
    synonyms: dict[str, Sequence[str]] = {}
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if clip.SYNONYMS else ():
        synonyms |= MetadataCatalog.get(name).get("synonyms", {})
    templates = template_set(clip.TEMPLATE_SET) if clip.TEMPLATE_SET else clip.TEMPLATES
    return {"templates": templates, "synonyms": synonyms}
