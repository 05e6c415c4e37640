"""The training-free meta-architecture: dense tokens times text embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from zss_d2.clip.wording import PromptSettings, Vocabulary, class_tokens
from zss_d2.errors import ZssError
from zss_d2.modeling.clip_segmentor import ClipSegmentor
from zss_d2.modeling.precision import in_single_precision
from zss_d2.modeling.trace import Trace, dense_stage


@META_ARCH_REGISTRY.register()
class MaskCLIP(ClipSegmentor):
    """Every dense token takes the class whose text embedding is nearest. Nothing is trained.

    With the dense tokens of later methods it is these methods (docs/training_free.md).
    """

    @configurable
    def __init__(
        self,
        *,
        temperature: float,
        words: Mapping[str, Sequence[str]] | None = None,
        **parts: Any,
    ):
        """
        Args:
            temperature: of the softmax over classes.
            words: of some classes, each of which is what any of its words is; the others are what
                they are called.
            parts: arguments of `ClipSegmentor`.
        """
        super().__init__(**parts)
        self.temperature = temperature
        self.words = {name: tuple(own) for name, own in (words or {}).items()}

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts, words = super().from_config(cfg), {x: own for x, *own in cfg.MODEL.MASKCLIP.WORDS}
        _require_frozen(parts)
        _check_words(words, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), parts)
        return {**parts, "temperature": cfg.MODEL.MASKCLIP.TEMPERATURE, "words": words}

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        logits = super().class_logits(images, class_names)  # (B, words, h, w)
        sizes = self.words_per_class(class_names)
        return logits if set(sizes) == {1} else best_of_groups(logits, sizes)

    def text_embeddings(self, class_names: Sequence[str]) -> Tensor:
        words = [self._words_of(name, class_names) for name in class_names]
        if any(own != (name,) for own, name in zip(words, class_names, strict=True)):
            class_names = _flat(words, class_names)
        return super().text_embeddings(class_names)

    def embedded_logits(self, images: Tensor, text: Tensor) -> Tensor:
        return _cosines(self.image_encoder(images).dense, text) / self.temperature

    def words_per_class(self, class_names: Sequence[str]) -> tuple[int, ...]:
        return tuple(len(self._words_of(name, class_names)) for name in class_names)

    def _words_of(self, name: str, class_names: Sequence[str]) -> tuple[str, ...]:
        """Words that stand for a class; wordings that a user gives for it count alone."""
        if isinstance(class_names, Vocabulary) and name in class_names.synonyms:
            return (name,)
        return self.words.get(name, (name,))

    @torch.no_grad()
    def trace(self, images: Tensor, class_names: Sequence[str]) -> Trace:
        """Dense tokens of normalised images (B, 3, H, W) and the classes: there is no decoder.

        Raises:
            ZssError: classes have several words, so there is no one embedding of each.
        """
        if self.words:
            raise ZssError(
                "MODEL.MASKCLIP.WORDS gives classes several embeddings, and one of each is needed "
                "here; add --opts MODEL.MASKCLIP.WORDS '[]'"
            )
        padded = self._pad(list(images))
        features, text = self.encode(padded, class_names)
        stage = dense_stage("CLIP's tokens", features.dense, text)
        return Trace(text, [stage], tuple(padded.shape[2:]))

    def activate(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)

    def training_outputs(self, images: Tensor) -> Any:
        raise ZssError("MaskCLIP has nothing to train; use --eval-only")


def best_of_groups(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """The largest logit of each group of neighbouring words: (B, sum(sizes), h, w) -> (B, K, h, w).

    Args:
        sizes: K numbers of words.
    """
    return torch.stack([group.amax(dim=1) for group in logits.split(list(sizes), dim=1)], dim=1)


def _flat(words: Sequence[Sequence[str]], class_names: Sequence[str]) -> Sequence[str]:
    """All words, with what the class names say of their embedding."""
    everything = tuple(word for own in words for word in own)
    if not isinstance(class_names, Vocabulary):
        return everything
    return Vocabulary(everything, class_names.synonyms, class_names.templates)


def _require_frozen(parts: Mapping[str, Any]) -> None:
    """Raise `ZssError` for learnable parts of the towers, which would stay random."""
    towers = (parts["image_encoder"], parts["text_encoder"])
    if any(x.requires_grad for tower in towers for x in tower.parameters()):
        raise ZssError(
            "MaskCLIP has nothing to train, so prompts would stay random; set "
            "MODEL.VISUAL_PROMPTS.LENGTH 0, MODEL.VISUAL_PROMPTS.NORM False and "
            "MODEL.TEXT_PROMPTS.LENGTH 0"
        )


def _check_words(
    words: Mapping[str, Sequence[str]], datasets: Sequence[str], parts: Mapping[str, Any]
) -> None:
    """Raise `ZssError` for words of no class, and for those that CLIP cannot tell apart."""
    known: set[str] = set()
    for dataset in dict.fromkeys(datasets) if words else ():
        classes = MetadataCatalog.get(dataset).get("stuff_classes", ())
        known.update(classes)
        everything = [word for name in classes for word in words.get(name, (name,))]
        settings = PromptSettings(("{}",), parts["prompt_settings"].synonyms)
        try:
            class_tokens(parts["text_encoder"].tokenizer, everything, settings)
        except ZssError as error:
            raise ZssError(f"MODEL.MASKCLIP.WORDS, {dataset}: {error}") from None
    if unknown := [name for name in words if name not in known]:
        raise ZssError(
            f"MODEL.MASKCLIP.WORDS has words for {unknown[0]!r}, which is no class of "
            f"{', '.join(dict.fromkeys(datasets))}; leave them out"
        )


@in_single_precision
def _cosines(dense: Tensor, text: Tensor) -> Tensor:
    """Dense tokens (B, C, h, w), unit-norm embeddings (K, C) -> (B, K, h, w)."""
    return torch.einsum("bchw,kc->bkhw", F.normalize(dense, dim=1), text)
