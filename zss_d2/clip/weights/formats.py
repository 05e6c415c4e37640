"""CLIP weights in all the formats they are released in, brought under open_clip's names."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import open_clip
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

from zss_d2.clip.weights.file import (
    CLIP_KEY,
    first_of,
    read_file,
    require_usable,
    tensors_of,
    weights_error,
)

logger = logging.getLogger(__name__)

OPENAI, OPEN_CLIP, TRANSFORMERS = "OpenAI", "open_clip", "transformers"
# What every CLIP has that is named as open_clip and OpenAI, and as transformers, do.
_MARKS = "visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"
# OpenAI's files, and no others, say these beside the weights.
_OPENAI_FACTS = ("input_resolution", "context_length", "vocab_size")
# Of CLIP's own loss; no tower uses them.
_LOSS = ("logit_scale", "logit_bias")
_GRID = "visual.positional_embedding"
# Where the sizes of a model have the number of patches.
_PATCHES = 4

_RENAMED = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", _GRID),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
_QKV = re.compile(r"\.self_attn\.([qkv])_proj\.")


class Weights(NamedTuple):
    """Weights of a CLIP with open_clip's names."""

    path: Path
    state: dict[str, Tensor]
    kind: str  # of file, in words
    origin: str  # OPENAI: only its own files are like this; else whose names the tensors had

    @property
    def format(self) -> str:
        """In words, for messages."""
        return f"{self.kind} of {self.origin}"


def read_weights(path: Path) -> Weights:
    """Read and rename the weights of a CLIP.

    Formats: OpenAI's TorchScript archive and state dict; open_clip's and transformers' state dicts;
    as safetensors or from ``torch.save``, within a dictionary of a training run or not, and behind
    any prefix.

    Raises:
        ZssError: no such file, or weights of something else.
    """
    content = read_file(path)
    state = tensors_of(content.entries, path, CLIP_KEY)
    ours, theirs = (_prefixes(state, mark) for mark in _MARKS)
    prefixes = ours or theirs
    if not prefixes:
        raise weights_error(
            path,
            f"{len(state)} tensors, but no CLIP's as OpenAI, open_clip or transformers name them"
            f"{first_of(state)}; give a file of one of those",
        )
    if len(prefixes) > 1:
        raise weights_error(
            path, f"holds {len(prefixes)} CLIPs{first_of(prefixes)}; save one of them alone"
        )
    named = _behind(state, prefixes[0], path)
    openai = set(_OPENAI_FACTS) <= {key.rsplit(".", 1)[-1] for key in state}
    for fact in _OPENAI_FACTS:
        named.pop(fact, None)
    kind = content.kind
    if not ours:
        return Weights(path, from_transformers(named), kind, TRANSFORMERS)
    if "text.token_embedding.weight" in named:
        named = {key.removeprefix("text."): value for key, value in named.items()}
    return Weights(path, named, kind, OPENAI if openai else OPEN_CLIP)


def load_weights(clip: open_clip.CLIP, weights: Weights, name: str) -> None:
    """Fill a CLIP, built for ``MODEL.CLIP.NAME``; every tensor of both towers must come, and fit.

    A position embedding of another grid is resized, with a warning, where open_clip has no
    configuration with that grid.

    Raises:
        ZssError: tensors that are missing, left over or of another size.
    """
    own = {key: value for key, value in clip.state_dict().items() if key not in _LOSS}
    state = {key: value for key, value in weights.state.items() if key not in _LOSS}
    sized = [key for key in own if key in state and own[key].shape != state[key].shape]
    others = [other for other in fitting_models(state) if other != name]
    if sized == [_GRID] and own.keys() == state.keys() and not others and _is_square(state[_GRID]):
        logger.warning(
            "%s: position embedding of %d patches, %s has %d; it is resized",
            *(weights.path, len(state[_GRID]) - 1, name, len(own[_GRID]) - 1),
        )
        resize_pos_embed(state, clip)
        sized = []
    problems = [
        f"{len(keys)} tensors {what}{first_of(keys)}"
        for what, keys in (
            ("are missing", [key for key in own if key not in state]),
            ("are not of this model", [key for key in state if key not in own]),
            ("are of another size", sized),
        )
        if keys
    ]
    if problems:
        remedy = f"set MODEL.CLIP.NAME {others[0]}" if others else "give weights of this model"
        raise weights_error(
            weights.path, f"{weights.format}, does not fit {name}: {problems[0]}; {remedy}"
        )
    require_usable(state, own, weights.path, CLIP_KEY)
    clip.load_state_dict(state, strict=False)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a ``CLIPModel``: joined q, k, v; projections without transposition.

    What has no counterpart keeps its name.
    """
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.endswith("embeddings.position_ids"):  # 0, 1, 2...
            continue
        name = key
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if name in ("visual.proj", "text_projection"):
            value = value.T
        if part := _QKV.search(name):
            joined.setdefault(_QKV.sub(".attn.in_proj_", name), {})[part[1]] = value
        else:
            renamed[name] = value
    for name, parts in joined.items():
        if len(parts) == 3:
            renamed[name] = torch.cat([parts[part] for part in "qkv"])
    return renamed


def fitting_models(state: Mapping[str, Tensor], any_grid: bool = False) -> list[str]:
    """Names of open_clip's CLIPs that weights have the sizes of, the plain names first.

    Args:
        any_grid: the number of patches, for which position embeddings are resized, may be another.
    """
    try:
        sizes = _sizes_of_weights(state)
    except (KeyError, ValueError, IndexError):  # of another kind of CLIP
        return []

    def fits(own: tuple[int, ...] | None) -> bool:
        if own is None or not any_grid:
            return own == sizes
        return all(a == b for i, (a, b) in enumerate(zip(own, sizes, strict=True)) if i != _PATCHES)

    names = (name for name in open_clip.list_models() if fits(_sizes_of_model(name)))
    return sorted(names, key=len)


def _sizes_of_weights(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    patches = len(state[_GRID]) - 1
    context, text_width = state["positional_embedding"].shape
    embed_dim, words = state["text_projection"].shape[1], len(state["token_embedding.weight"])
    depth, text_depth = (
        len({key.split(".resblocks.")[1].split(".")[0] for key in state if key.startswith(tower)})
        for tower in ("visual.transformer.resblocks.", "transformer.resblocks.")
    )
    return embed_dim, width, depth, patch, patches, text_width, text_depth, context, words


def _sizes_of_model(name: str) -> tuple[int, ...] | None:
    config = open_clip.get_model_config(name)
    image, text = config["vision_cfg"], config["text_cfg"]
    patch, side = image.get("patch_size"), image.get("image_size", 224)
    other_text = config.get("custom_text") or text.get("hf_model_name")
    if not isinstance(patch, int) or not isinstance(side, int) or other_text:
        return None
    return (
        *(config["embed_dim"], image.get("width", 768), image.get("layers", 12), patch),
        (side // patch) ** 2,
        *(text.get("width", 512), text.get("layers", 12)),
        *(text.get("context_length", 77), text.get("vocab_size", 49408)),
    )


def _is_square(embedding: Tensor) -> bool:
    patches = len(embedding) - 1
    return math.isqrt(patches) ** 2 == patches


def _prefixes(state: Mapping[str, Tensor], mark: str) -> list[str]:
    """What stands before ``mark`` in the names, such as ``""`` or ``"module."``."""
    starts = [key.removesuffix(mark) for key in state if key.endswith(mark)]
    return [start for start in starts if not start or start.endswith(".")]


def _behind(state: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """The tensors behind a prefix, without it; others are no part of the CLIP, which is said."""
    inside = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    outside = [key for key in state if not key.startswith(prefix)]
    if outside:
        logger.warning(
            "%s: %d tensors outside of %r are left out%s",
            *(path, len(outside), prefix, first_of(outside)),
        )
    return inside
