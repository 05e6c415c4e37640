"""What the methods share that keep both CLIP towers at test time."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from zss_d2.clip import ClipTowers, ImageEncoder, ImageFeatures, PromptSettings, TextEncoder
from zss_d2.clip.identity import ClipIdentity
from zss_d2.clip.templates import template_set
from zss_d2.clip.towers import get_tokenizer
from zss_d2.clip.wording import class_tokens, prompts_for
from zss_d2.errors import ZssError
from zss_d2.modeling.identity import lineage
from zss_d2.modeling.segmentor import ZeroShotSegmentor

logger = logging.getLogger(__name__)


class ClipSegmentor(ZeroShotSegmentor):
    """`ZeroShotSegmentor` with both towers. A method extends `from_config` with its own parts."""

    origin = (*ZeroShotSegmentor.origin, "templates")
    beside_logits = ("text_encoder",)

    def __init__(
        self,
        *,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        prompt_settings: PromptSettings,
        clip_from_weights: bool = False,
        **base_kwargs: Any,
    ):
        """
        Args:
            image_encoder: images -> CLS token and dense tokens (C channels).
            text_encoder: class names -> unit-norm embeddings (K, C).
            prompt_settings: sentences and synonyms that class names are embedded with.
            clip_from_weights: both towers are without weights until a checkpoint is loaded.
            base_kwargs: arguments of `ZeroShotSegmentor`.
        """
        super().__init__(**base_kwargs)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.prompt_settings = prompt_settings
        self.clip_from_weights = clip_from_weights

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        towers = ClipTowers.from_config(cfg)
        return {
            **cls.base_kwargs(cfg, towers.pixel_mean, towers.pixel_std),
            "size_divisibility": towers.image.patch_size[0],
            "image_encoder": towers.image,
            "text_encoder": towers.text,
            "prompt_settings": prompt_settings(cfg, learned=cfg.MODEL.TEXT_PROMPTS.LENGTH > 0),
            "clip_from_weights": cfg.MODEL.CLIP.FROM_WEIGHTS,
        }

    def identity(self) -> dict[str, Any]:
        """With the CLIP, and the sentences that class names were put into."""
        return {
            **super().identity(),
            "clip": describe_clip(self.text_encoder.identity),
            "templates": list(self.prompt_settings.templates or ()),
        }

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "MODEL.CLIP.DENSE_TOKENS": self.image_encoder.dense_tokens.name,
            **self.image_encoder.dense_tokens.settings,
            "MODEL.CLIP.POSITION_RESIZE": self.image_encoder.position_resize,
            "MODEL.CLIP.FEATURE_LAYERS": list(self.image_encoder.feature_layers),
            # True without any synonyms is the same.
            "MODEL.CLIP.SYNONYMS": any(
                name in self.prompt_settings.synonyms for name in self.classes
            ),
        }

    def adopt(self, identity: Mapping[str, Any], state: dict[str, Tensor]) -> None:
        """The weights hold both towers, but not their activation; other sentences are a warning.

        Raises:
            ZssError: the activation is another one.
        """
        super().adopt(identity, state)
        own = self.identity()
        if "clip" in identity:
            require_activation(identity["clip"], own["clip"])
        for sentences in (x["templates"] for x in lineage(identity) if "templates" in x):
            if sentences != own["templates"]:
                logger.warning(
                    "The checkpoint was trained with the sentences %s, here they are %s",
                    *(shortened(sentences), shortened(own["templates"])),
                )

    def to_share(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """With both towers, so that CLIP itself need not be there."""
        state, keys = super().to_share()
        quick_gelu = self.text_encoder.identity.quick_gelu
        return state, {
            **keys,
            "MODEL.CLIP.FROM_WEIGHTS": True,
            "MODEL.CLIP.QUICK_GELU": str(quick_gelu).lower(),
            # Those that come with CLIP's weights otherwise.
            "MODEL.PIXEL_MEAN": self.pixel_mean.flatten().tolist(),
            "MODEL.PIXEL_STD": self.pixel_std.flatten().tolist(),
        }

    def encode(self, images: Tensor, class_names: Sequence[str]) -> tuple[ImageFeatures, Tensor]:
        """Both towers: tokens of normalised images (B, 3, H, W), embeddings (K, C) of the names."""
        text = self.text_embeddings(class_names)
        return self.image_encoder(images), text

    def text_embeddings(self, class_names: Sequence[str]) -> Tensor:
        prompts = prompts_for(class_names, self.prompt_settings)
        return self.text_encoder.classifier(class_names, prompts)


def shortened(values: Collection[Any]) -> str:
    """A list or dict for a message."""
    text = repr(values)
    return text if len(text) <= 90 else f"{text[:80]}... ({len(values)} in all)"


def describe_clip(clip: ClipIdentity) -> dict[str, Any]:
    """What a checkpoint says of its CLIP."""
    return {"name": clip.name, "pretrained": clip.pretrained, "quick_gelu": clip.quick_gelu}


def require_activation(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise `ZssError` unless two CLIPs of `describe_clip` have the same activation."""
    if found["quick_gelu"] != own["quick_gelu"]:
        names = {True: "QuickGELU", False: "GELU"}
        raise ZssError(
            f"the checkpoint was trained with CLIP {found['name']} under "
            f"{names[found['quick_gelu']]}, and this config gives {own['name']} with "
            f"{names[own['quick_gelu']]}; set MODEL.CLIP.NAME {found['name']} and "
            f"MODEL.CLIP.QUICK_GELU {str(found['quick_gelu']).lower()}"
        )


def prompt_settings(cfg: CfgNode, *, learned: bool = False) -> PromptSettings:
    """What class names are embedded with, as ``MODEL.CLIP`` says.

    Synonyms are those of the classes of ``DATASETS.TRAIN`` and ``DATASETS.TEST``, whose names,
    seen and unseen, are checked here, before anything is trained.

    Args:
        learned: language prompts stand in for the templates.

    Raises:
        ZssError: see `class_tokens`; two sets have other synonyms for one name.
    """
    clip = cfg.MODEL.CLIP
    templates = template_set(clip.TEMPLATE_SET) if clip.TEMPLATE_SET else tuple(clip.TEMPLATES)
    if learned:
        templates = None
    tokenizer = get_tokenizer(clip.NAME)
    synonyms: dict[str, tuple[str, ...]] = {}
    origin: dict[str, str] = {}
    for dataset in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        metadata = MetadataCatalog.get(dataset)
        classes = metadata.get("stuff_classes", ())
        own = metadata.get("synonyms", {}) if clip.SYNONYMS else {}
        if not classes:
            continue
        try:
            class_tokens(tokenizer, classes, PromptSettings(templates, own))
        except ZssError as error:
            raise ZssError(f"{dataset}: {error}") from None
        for name in classes:
            words = tuple(own.get(name, ()))
            if synonyms.setdefault(name, words) != words:
                raise ZssError(
                    f"class {name!r} has the synonyms {list(synonyms[name])} in {origin[name]} and "
                    f"{list(words)} in {dataset}; set MODEL.CLIP.SYNONYMS False, or use one of them"
                )
            origin.setdefault(name, dataset)
    return PromptSettings(templates, {name: words for name, words in synonyms.items() if words})
