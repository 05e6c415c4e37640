"""The tensors of ZegCLIP's released checkpoints under the names that this project has for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Released name, or its beginning where it ends in a dot -> ours.
_NAMES = {
    **{
        f"backbone.{part}": f"image_encoder.visual.{part}"
        for part in (
            *("conv1.", "ln_pre.", "transformer.", "ln_post."),
            *("class_embedding", "positional_embedding", "proj"),
        )
    },
    "backbone.prompt_proj.": "image_encoder.prompts.projection.",
    "backbone.prompt_norm.": "image_encoder.prompt_norm.",
    "text_encoder.": "text_encoder.",
    "decode_head.q_proj.": "descriptor.linear.",
}
_DECODER = re.compile(r"decode_head\.decoder_1\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OF_A_LAYER = {
    **{
        f"multihead_attn.{theirs}": f"attention.{ours}"
        for theirs, ours in zip(("q", "k", "v", "proj"), ("q", "k", "v", "out"), strict=True)
    },
    "linear1": "ffn.0",
    "linear2": "ffn.3",
    "norm2": "attention_norm",
    "norm3": "ffn_norm",
}
# Built by the released code, and never called there either.
_UNUSED = (
    re.compile(r"decode_head\.decoder_1\.layers\.\d+\.(self_attn|norm1)\..+"),
    re.compile(r"decode_head\.loss_decode\.criterion\.empty_weight"),
)
FIRST, DEEP = "backbone.prompt_embeddings", "backbone.deep_prompt_embeddings"
PROMPTS = "image_encoder.prompts.tokens"
CLASS = "image_encoder.visual.class_embedding"
POSITIONS = "image_encoder.visual.positional_embedding"
EMPTY_WEIGHT = "decode_head.loss_decode.criterion.empty_weight"
# A file that lacks most of these is none of ZegCLIP's.
MARKS = (
    *("backbone.conv1.weight", FIRST, DEEP, "backbone.prompt_proj.weight"),
    *("text_encoder.token_embedding.weight", "decode_head.q_proj.weight"),
    "decode_head.decoder_1.layers.0.multihead_attn.q.weight",
)


class Renamed(NamedTuple):
    """The tensors of a file, sorted."""

    state: dict[str, Tensor]  # by our names; positions still of the grid of the file
    unused: list[str]  # released names of what nobody uses
    unknown: list[str]  # released names of anything else


def rename(released: Mapping[str, Tensor]) -> Renamed:
    """Bring the tensors of a released checkpoint under our names.

    The class embedding is doubled: the released code adds it to the token twice, once as the token
    and once with its position. The first and the deep prompts, (1, P, C) and (layers - 1, P, C),
    become one tensor (layers, P, C).
    """
    state: dict[str, Tensor] = {}
    unused, unknown = [], []
    for name, value in released.items():
        if name in (FIRST, DEEP):
            continue
        ours = our_name(name)
        if ours:
            state[ours] = 2 * value if ours == CLASS else value
        else:
            known = any(pattern.fullmatch(name) for pattern in _UNUSED)
            (unused if known else unknown).append(name)
    if FIRST in released and DEEP in released:
        state[PROMPTS] = torch.cat([released[FIRST], released[DEEP]])
    else:
        unknown += [name for name in (FIRST, DEEP) if name in released]
    return Renamed(state, unused, unknown)


def our_name(released: str) -> str:
    """Ours for a released name; "" if there is none."""
    if match := _DECODER.fullmatch(released):
        layer, part, tensor = match.groups()
        part = _OF_A_LAYER.get(part)
        return f"decoder.layers.{layer}.{part}.{tensor}" if part else ""
    for theirs, ours in _NAMES.items():
        if released == theirs or (theirs.endswith(".") and released.startswith(theirs)):
            return ours + released[len(theirs) :]
    return ""


def released_name(ours: str) -> str:
    """The inverse of `our_name`, for messages."""
    if ours == PROMPTS:
        return f"{FIRST} or {DEEP}"
    if match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)\.(weight|bias)", ours):
        layer, part, tensor = match.groups()
        parts = {value: key for key, value in _OF_A_LAYER.items()}
        if part in parts:
            return f"decode_head.decoder_1.layers.{layer}.{parts[part]}.{tensor}"
    for theirs, own in _NAMES.items():
        if ours == own or (own.endswith(".") and ours.startswith(own)):
            return theirs + ours[len(own) :]
    return ours
