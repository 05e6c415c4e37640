"""From a model name and a weights tag to frozen image and text towers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import open_clip
from detectron2.config import CfgNode
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.constants import HF_WEIGHTS_NAME
from open_clip.transformer import VisionTransformer
from torch import Tensor

from zss_d2.clip.dense_tokens import DenseTokens
from zss_d2.clip.identity import ClipIdentity
from zss_d2.clip.image import ImageEncoder
from zss_d2.clip.mini.tokenizer import ClosedVocabularyTokenizer
from zss_d2.clip.text import TextEncoder
from zss_d2.clip.weights.activation import (
    Known,
    activation_of_file,
    activation_of_tag,
    choose_quick_gelu,
)
from zss_d2.clip.weights.companion import HUB_CONFIG, find_companion
from zss_d2.clip.weights.download import Wish, hub_file, names_on_hub, url_file
from zss_d2.clip.weights.formats import load_weights, read_weights
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

open_clip.add_model_config(Path(__file__).parent / "model_configs")
_MINI = "mini"
# Weights of the mini CLIP that come with the package; a file's name is its tag.
_MINI_WEIGHTS = Path(__file__).parent / "mini"
_NONE: Mapping[str, Sequence[float]] = MappingProxyType({})


class ClipTowers(NamedTuple):
    """Both towers of one CLIP and the image statistics its weights expect."""

    image: ImageEncoder
    text: TextEncoder
    pixel_mean: tuple[float, float, float]  # RGB, 0..255
    pixel_std: tuple[float, float, float]

    @classmethod
    def from_config(cls, cfg: CfgNode, *, plain: bool = False) -> ClipTowers:
        """The towers of ``MODEL.CLIP`` with the prompts of both sides.

        Args:
            plain: without prompts and with the dense tokens of the last block alone, as the teacher
                of a student.

        Raises:
            ZssError: see `build_clip_towers` and `TextEncoder.add_prompts`.
        """
        clip, visual, text = cfg.MODEL.CLIP, cfg.MODEL.VISUAL_PROMPTS, cfg.MODEL.TEXT_PROMPTS
        learned = {
            "prompt_length": visual.LENGTH,
            "prompt_dropout": visual.DROPOUT,
            "prompt_projection": visual.PROJECTION,
            "prompt_norm": visual.NORM,
            "feature_layers": clip.FEATURE_LAYERS,
            "checkpoint_blocks": cfg.MODEL.CHECKPOINT_BLOCKS,
        }
        towers = build_clip_towers(
            clip.NAME,
            clip.PRETRAINED,
            quick_gelu=clip.QUICK_GELU,
            dense_tokens=DenseTokens.from_config(cfg),
            position_resize=clip.POSITION_RESIZE,
            from_weights=clip.FROM_WEIGHTS and not plain,
            **({} if plain else learned),
        )
        if text.LENGTH > 0 and not plain:
            towers.text.add_prompts(text.LENGTH, text.INIT, text.DROPOUT)
        return towers

    @property
    def identity(self) -> ClipIdentity:
        """Which CLIP this is: name, weights, activation."""
        return self.text.identity


def build_clip_towers(
    name: str,
    pretrained: str,
    *,
    quick_gelu: str = "auto",
    prompt_length: int = 0,
    prompt_dropout: float = 0.0,
    prompt_projection: bool = False,
    prompt_norm: bool = False,
    dense_tokens: str | DenseTokens = "tokens",
    feature_layers: Sequence[int] = (-1,),
    position_resize: str = "bilinear",
    checkpoint_blocks: bool = False,
    from_weights: bool = False,
) -> ClipTowers:
    """Build the towers of an open_clip model; their own weights are frozen.

    Args:
        name: a ViT known to open_clip, or a file name (without .json) in ``model_configs``.
        pretrained: tag of open_clip, path of a weights file, or "" for random weights; ``mini`` has
            the tags ``seed0`` and ``seed1``.
        quick_gelu: "auto", "true" or "false", see `choose_quick_gelu`.
        prompt_length, prompt_dropout, prompt_projection, prompt_norm, dense_tokens,
            feature_layers, position_resize, checkpoint_blocks: of the image tower, see
            `ImageEncoder`. Language prompts are added to the text tower with
            `TextEncoder.add_prompts`.
        from_weights: the caller fills both towers from a checkpoint; ``pretrained`` is only noted.

    Raises:
        ZssError: unknown name, tag or file; a tower that is no plain ViT; weights that do not fit,
            or that contradict ``quick_gelu``.
    """
    make = _to_be_filled if from_weights else _create
    clip = make(name, pretrained, quick_gelu).requires_grad_(False).eval()
    image = ImageEncoder(
        clip.visual,
        prompt_length=prompt_length,
        prompt_dropout=prompt_dropout,
        prompt_projection=prompt_projection,
        prompt_norm=prompt_norm,
        dense_tokens=dense_tokens,
        feature_layers=feature_layers,
        position_resize=position_resize,
        checkpoint_blocks=checkpoint_blocks,
    )
    return assemble_towers(clip, image, name, pretrained)


def assemble_towers(
    clip: open_clip.CLIP, image: ImageEncoder, name: str, pretrained: str = ""
) -> ClipTowers:
    """Make the towers of a CLIP that exists already, with an image tower over its ViT."""
    preprocess = open_clip.get_model_preprocess_cfg(clip)
    return ClipTowers(
        image=image,
        text=TextEncoder(clip, get_tokenizer(name), name, pretrained),
        pixel_mean=tuple(255 * value for value in preprocess["mean"]),
        pixel_std=tuple(255 * value for value in preprocess["std"]),
    )


def get_tokenizer(name: str) -> Callable[[list[str]], Tensor]:
    """Return the tokenizer of a model: open_clip's, or for ``mini`` the one of its few words."""
    return ClosedVocabularyTokenizer() if name == _MINI else open_clip.get_tokenizer(name)


def joint_dim(name: str) -> int:
    """Channels C of the joint space of an open_clip model, without building it.

    Raises:
        ZssError: unknown name.
    """
    return _model_config(name)["embed_dim"]


def blocks_of(name: str) -> int:
    """Residual blocks of the image tower of an open_clip model, without building it.

    Raises:
        ZssError: unknown name.
    """
    layers = _model_config(name)["vision_cfg"].get("layers", 0)
    return layers if isinstance(layers, int) else 0  # ResNets have a list


def _mini_tags() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_MINI_WEIGHTS.glob("*.safetensors"))}


def _create(name: str, pretrained: str, quick_gelu: str) -> open_clip.CLIP:
    _model_config(name)
    shipped = _mini_tags() if name == _MINI else {}
    if pretrained in shipped:
        known = Known(False, f"the mini CLIP {pretrained!r}")
        return _from_file(name, shipped[pretrained], quick_gelu, known)
    if not pretrained:
        logger.warning("CLIP %s has random weights (MODEL.CLIP.PRETRAINED is empty)", name)
        return _bare(name, choose_quick_gelu(quick_gelu, name, "", None))
    if open_clip.get_pretrained_cfg(name, pretrained):
        return _from_tag(name, pretrained, quick_gelu)
    if not os.path.exists(pretrained):  # False for impossible names too
        tags = [*shipped, *open_clip.list_pretrained_tags_by_model(name)]
        raise ZssError(
            f"MODEL.CLIP.PRETRAINED is {pretrained[-100:]!r}: neither a file nor a tag of {name} "
            f"(tags: {', '.join(tags) or 'none'})"
        )
    return _from_file(name, Path(pretrained), quick_gelu)


def _to_be_filled(name: str, pretrained: str, quick_gelu: str) -> open_clip.CLIP:
    """A CLIP whose weights come with a checkpoint; statistics of images are those of the tag."""
    _model_config(name)
    listed = open_clip.get_pretrained_cfg(name, pretrained)  # {} for a file
    known = activation_of_tag(name, pretrained) if listed else None
    statistics = {key: listed[key] for key in ("mean", "std") if key in listed}
    return _bare(name, choose_quick_gelu(quick_gelu, name, pretrained, known), statistics)


def _model_config(name: str) -> dict[str, Any]:
    if name not in open_clip.list_models():
        raise ZssError(
            f"MODEL.CLIP.NAME is {name!r}, which open_clip does not know; "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists the names"
        )
    return open_clip.get_model_config(name)


def _from_tag(name: str, tag: str, quick_gelu: str) -> open_clip.CLIP:
    """A tag is a file on the hub, or elsewhere, and statistics of images."""
    listed = open_clip.get_pretrained_cfg(name, tag)
    repo, _, file = listed.get("hf_hub", "").rpartition("/")
    names = names_on_hub(file or HF_WEIGHTS_NAME)
    source = f"{names[0]} and {HUB_CONFIG} of {repo}" if repo else listed["url"]
    wish = Wish(
        f"MODEL.CLIP.PRETRAINED {tag!r}",
        f"fetch {source} elsewhere and give the path here, or that of any weights of {name}",
    )
    path = hub_file(repo, names, wish) if repo else url_file(listed["url"], wish)
    statistics = {key: listed[key] for key in ("mean", "std") if key in listed}
    return _from_file(name, path, quick_gelu, activation_of_tag(name, tag), statistics)


def _from_file(
    name: str,
    path: Path,
    quick_gelu: str,
    known: Known | None = None,
    statistics: Mapping[str, Sequence[float]] = _NONE,
) -> open_clip.CLIP:
    weights = read_weights(path)
    companion = None if known else find_companion(weights)
    known = known or activation_of_file(weights, companion)
    quick = choose_quick_gelu(quick_gelu, name, str(path), known)
    clip = _bare(name, quick, companion.statistics if companion else statistics)
    load_weights(clip, weights, name)
    return clip


def _bare(
    name: str, quick_gelu: bool, statistics: Mapping[str, Sequence[float]] = _NONE
) -> open_clip.CLIP:
    """A model without weights. open_clip's own way warns of them, in everybody's log.

    Raises:
        ZssError: it is no CLIP with a plain ViT.
    """
    config = _model_config(name)
    others = {"custom_text", "multimodal_cfg", "hf_model_name", "timm_model_name"}
    if not others & {*config, *config["text_cfg"], *config["vision_cfg"]}:
        config["quick_gelu"] = quick_gelu or config.get("quick_gelu", False)
        clip = open_clip.CLIP(**config)
        if isinstance(clip.visual, VisionTransformer):
            defaults = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
            open_clip.set_model_preprocess_cfg(clip, defaults | dict(statistics))
            return clip
    raise ZssError(
        f"MODEL.CLIP.NAME is {name!r}, which is no CLIP with a plain ViT; "
        "use for example 'ViT-B-16' or 'ViT-L-14'"
    )
