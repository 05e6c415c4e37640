"""From a model name and a weights tag to frozen image and text towers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import open_clip
from detectron2.utils import comm
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from zss_d2.clip.image import ImageEncoder
from zss_d2.clip.mini.tokenizer import ClosedVocabularyTokenizer
from zss_d2.clip.text import TextEncoder
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

open_clip.add_model_config(Path(__file__).parent / "model_configs")
_MINI = "mini"
# Weights of the mini CLIP that come with the package; a file's name is its tag.
_MINI_WEIGHTS = Path(__file__).parent / "mini"


class ClipTowers(NamedTuple):
    """Both towers of one CLIP and the image statistics its weights expect."""

    image: ImageEncoder
    text: TextEncoder
    pixel_mean: tuple[float, float, float]  # RGB, 0..255
    pixel_std: tuple[float, float, float]


def build_clip_towers(
    name: str,
    pretrained: str,
    *,
    prompt_length: int = 0,
    prompt_dropout: float = 0.0,
    prompt_projection: bool = False,
    prompt_norm: bool = False,
    dense_tokens: str = "tokens",
    feature_layers: Sequence[int] = (-1,),
) -> ClipTowers:
    """Build the towers of an open_clip model; their own weights are frozen.

    Args:
        name: a ViT known to open_clip, or a file name (without .json) in ``model_configs``.
        pretrained: tag of open_clip, path of a weights file, or "" for random weights; ``mini`` has
            the tags ``seed0`` and ``seed1``.
        prompt_length, prompt_dropout, prompt_projection, prompt_norm, dense_tokens,
            feature_layers: of the image tower, see `ImageEncoder`. Language prompts are added to
            the text tower with `TextEncoder.add_prompts`.

    Raises:
        ZssError: unknown name, tag or file; a tower that is no plain ViT; weights that do not fit.
    """
    clip = _create(name, pretrained)
    if not isinstance(clip, open_clip.CLIP) or not isinstance(clip.visual, VisionTransformer):
        raise ZssError(
            f"MODEL.CLIP.NAME is {name!r}, which is no CLIP with a plain ViT; "
            "use for example 'ViT-B-16' or 'ViT-L-14'"
        )
    clip.requires_grad_(False).eval()
    image = ImageEncoder(
        clip.visual,
        prompt_length=prompt_length,
        prompt_dropout=prompt_dropout,
        prompt_projection=prompt_projection,
        prompt_norm=prompt_norm,
        dense_tokens=dense_tokens,
        feature_layers=feature_layers,
    )
    return assemble_towers(clip, image, name)


def assemble_towers(clip: open_clip.CLIP, image: ImageEncoder, name: str) -> ClipTowers:
    """Make the towers of a CLIP that exists already, with an image tower over its ViT."""
    preprocess = open_clip.get_model_preprocess_cfg(clip)
    return ClipTowers(
        image=image,
        text=TextEncoder(clip, get_tokenizer(name)),
        pixel_mean=tuple(255 * value for value in preprocess["mean"]),
        pixel_std=tuple(255 * value for value in preprocess["std"]),
    )


def get_tokenizer(name: str) -> Callable[[list[str]], Tensor]:
    """Return the tokenizer of a model: open_clip's, or for ``mini`` the one of its few words."""
    return ClosedVocabularyTokenizer() if name == _MINI else open_clip.get_tokenizer(name)


def _mini_tags() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_MINI_WEIGHTS.glob("*.safetensors"))}


def _create(name: str, pretrained: str) -> nn.Module:
    shipped = _mini_tags() if name == _MINI else {}
    pretrained = str(shipped.get(pretrained, pretrained))
    if name not in open_clip.list_models():
        raise ZssError(
            f"MODEL.CLIP.NAME is {name!r}, which open_clip does not know; "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists the names"
        )
    if not pretrained:
        logger.warning("CLIP %s has random weights (MODEL.CLIP.PRETRAINED is empty)", name)
        return open_clip.create_model(name)

    tag = open_clip.get_pretrained_cfg(name, pretrained)
    if not tag and not Path(pretrained).is_file():
        tags = [*shipped, *open_clip.list_pretrained_tags_by_model(name)]
        raise ZssError(
            f"MODEL.CLIP.PRETRAINED is {pretrained!r}: neither a file nor a tag of {name} "
            f"(tags: {', '.join(tags) or 'none'})"
        )
    # The first process of a machine downloads, the others then find the file.
    if tag and comm.get_local_rank() != 0:
        comm.synchronize()
    try:
        # Weights trained with QuickGELU give wrong features, silently, under GELU.
        return open_clip.create_model(
            name, pretrained=pretrained, force_quick_gelu=bool(tag.get("quick_gelu"))
        )
    except Exception as error:  # open_clip lets errors of several libraries through
        where = "could not be downloaded or loaded" if tag else "does not fit"
        raise ZssError(
            f"MODEL.CLIP.PRETRAINED {pretrained!r} {where} for {name}: {error}; give the path of "
            'a weights file of this model, or "" for random weights'
        ) from error
    finally:
        if tag and comm.get_local_rank() == 0:
            comm.synchronize()
