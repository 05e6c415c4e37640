"""ZegCLIP as its authors released it: the layout of a checkpoint, and its forward pass, plainly.

Both are written from the facts of the released code (github.com/ZiqinZhou66/ZegCLIP): which
tensors there are, of which shapes, and what is computed with them. One image, one window, one head
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Sizes of a checkpoint; those of the released ones, unless they are given."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    grid: int = 14  # of CLIP itself
    image: int = 512  # px
    dim: int = 512
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    context: int = 77
    words: int = 49408
    prompts: int = 10
    decoder_layers: int = 3
    decoder_heads: int = 8
    classes: int = 15  # of the loss


TINY = Shape(
    *(64, 3, 4, 16, 8, 192, 64, 64, 2, 4, 77, 49408),
    prompts=5,
    decoder_layers=3,
    decoder_heads=4,
)
"""CLIP zss-tiny."""


def shapes(size: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of ``state_dict``."""
    w, d, t, p = size.width, size.dim, size.text_width, size.patch
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        found.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    def attention(name: str, channels: int) -> None:
        found[f"{name}.in_proj_weight"] = (3 * channels, channels)
        found[f"{name}.in_proj_bias"] = (3 * channels,)
        linear(f"{name}.out_proj", channels, channels)

    def blocks(name: str, number: int, channels: int) -> None:
        for index in range(number):
            block = f"{name}.transformer.resblocks.{index}"
            attention(f"{block}.attn", channels)
            norm(f"{block}.ln_1", channels)
            linear(f"{block}.mlp.c_fc", 4 * channels, channels)
            linear(f"{block}.mlp.c_proj", channels, 4 * channels)
            norm(f"{block}.ln_2", channels)

    found["backbone.class_embedding"] = (w,)
    found["backbone.positional_embedding"] = (1 + (size.image // p) ** 2, w)
    found["backbone.proj"] = (w, d)
    found["backbone.prompt_embeddings"] = (1, size.prompts, w)
    found["backbone.deep_prompt_embeddings"] = (size.layers - 1, size.prompts, w)
    found["backbone.conv1.weight"] = (w, 3, p, p)
    norm("backbone.ln_pre", w)
    blocks("backbone", size.layers, w)
    norm("backbone.ln_post", w)
    linear("backbone.prompt_proj", w, w)
    norm("backbone.prompt_norm", w)
    found["text_encoder.positional_embedding"] = (size.context, t)
    found["text_encoder.text_projection"] = (t, d)
    blocks("text_encoder", size.text_layers, t)
    found["text_encoder.token_embedding.weight"] = (size.words, t)
    norm("text_encoder.ln_final", t)
    for index in range(size.decoder_layers):
        layer = f"decode_head.decoder_1.layers.{index}"
        attention(f"{layer}.self_attn", d)
        for part in ("q", "k", "v", "proj"):
            linear(f"{layer}.multihead_attn.{part}", d, d)
        linear(f"{layer}.linear1", 4 * d, d)
        linear(f"{layer}.linear2", d, 4 * d)
        for number in (1, 2, 3):
            norm(f"{layer}.norm{number}", d)
    linear("decode_head.q_proj", d, 2 * d)
    found["decode_head.loss_decode.criterion.empty_weight"] = (size.classes + 1,)
    return found


def make_state(size: Shape, seed: int = 0) -> dict[str, Tensor]:
    """A ``state_dict`` of random weights; its positions are CLIP's, enlarged as released."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(size).items():
        fan_in = shape[-1] if len(shape) > 1 else 64
        value = torch.randn(shape, generator=draw) * (0.7 * fan_in**-0.5)
        is_norm = ".ln_" in name or "norm" in name
        state[name] = 1 + value if is_norm and name.endswith("weight") else value
    side = size.image // size.patch
    own = torch.randn(1, size.width, size.grid, size.grid, generator=draw) * 0.2
    enlarged = F.interpolate(own, size=(side, side), mode="bilinear")
    cls = torch.randn(1, size.width, generator=draw) * 0.2
    name = "backbone.positional_embedding"
    state[name] = torch.cat([cls, enlarged[0].flatten(1).T])
    return state


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _linear(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    unit = centred / (variance + eps).sqrt()
    return unit * state[f"{name}.weight"] + state[f"{name}.bias"]


def _blocks(
    state: Mapping[str, Tensor],
    name: str,
    x: Tensor,
    layers: int,
    heads: int,
    mask: Tensor | None = None,
    before: Callable[[int, Tensor], Tensor] = lambda index, x: x,
) -> Tensor:
    """Tokens (N, C) through CLIP's residual blocks; ``before`` each, something may happen."""
    for index in range(layers):
        block = f"{name}.transformer.resblocks.{index}"
        x = before(index, x)
        y = _norm(state, f"{block}.ln_1", x)
        joint = y @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
        mixed = []
        for q, k, v in zip(
            *(part.chunk(heads, dim=1) for part in joint.chunk(3, dim=1)), strict=True
        ):
            scores = q @ k.T / q.shape[1] ** 0.5
            mixed.append((scores if mask is None else scores + mask).softmax(dim=1) @ v)
        x = x + _linear(state, f"{block}.attn.out_proj", torch.cat(mixed, dim=1))
        y = quick_gelu(_linear(state, f"{block}.mlp.c_fc", _norm(state, f"{block}.ln_2", x)))
        x = x + _linear(state, f"{block}.mlp.c_proj", y)
    return x


def text_embedding(state: Mapping[str, Tensor], size: Shape, tokens: Tensor) -> Tensor:
    """Token ids (context,) -> unit-norm embedding (D,)."""
    x = state["text_encoder.token_embedding.weight"][tokens]
    x = x + state["text_encoder.positional_embedding"]
    mask = torch.full((size.context, size.context), -torch.inf).triu(1)
    x = _blocks(state, "text_encoder", x, size.text_layers, size.text_heads, mask)
    x = _norm(state, "text_encoder.ln_final", x)[tokens.argmax()]
    return F.normalize(x @ state["text_encoder.text_projection"], dim=0)


def image_features(
    state: Mapping[str, Tensor], size: Shape, image: Tensor
) -> tuple[Tensor, Tensor]:
    """A normalised image (3, S, S) -> CLS (D,) and dense tokens (N, D), of unit norm each."""
    patches = F.conv2d(image[None], state["backbone.conv1.weight"], stride=size.patch)
    patches = patches[0].flatten(1).T  # (N, C)
    cls = state["backbone.class_embedding"]
    x = torch.cat([cls[None], patches])
    positions = state["backbone.positional_embedding"].clone()
    positions[0] = positions[0] + cls  # a second time
    x = _norm(state, "backbone.ln_pre", x + positions)
    first, deep = state["backbone.prompt_embeddings"], state["backbone.deep_prompt_embeddings"]

    def prompted(index: int, x: Tensor) -> Tensor:
        own = first[0] if index == 0 else deep[index - 1]
        return torch.cat([x[:1], _linear(state, "backbone.prompt_proj", own), x[-len(patches) :]])

    x = _blocks(state, "backbone", x, size.layers, size.heads, before=prompted)
    x = _norm(state, "backbone.prompt_norm", x, eps=1e-6)
    x = _norm(state, "backbone.ln_post", x) @ state["backbone.proj"]
    return F.normalize(x[0], dim=0), F.normalize(x[-len(patches) :], dim=1)


def window_scores(
    state: Mapping[str, Tensor], size: Shape, image: Tensor, text: Tensor, seen: Sequence[int]
) -> Tensor:
    """Sigmoid scores (K, S, S) of one window, less 0.1 of the seen classes."""
    cls, tokens = image_features(state, size, image)
    queries = _linear(state, "decode_head.q_proj", torch.cat([text * cls, text], dim=1))
    for index in range(size.decoder_layers):
        layer = f"decode_head.decoder_1.layers.{index}"
        q, k, v = (
            _linear(state, f"{layer}.multihead_attn.{part}", x).chunk(size.decoder_heads, dim=1)
            for part, x in (("q", queries), ("k", tokens), ("v", tokens))
        )
        scores = [a @ b.T / a.shape[1] ** 0.5 for a, b in zip(q, k, strict=True)]
        mixed = torch.cat([s.softmax(dim=1) @ c for s, c in zip(scores, v, strict=True)], dim=1)
        update = _linear(state, f"{layer}.multihead_attn.proj", mixed)
        queries = _norm(state, f"{layer}.norm2", queries + update)
        hidden = _linear(state, f"{layer}.linear1", queries).relu()
        queries = _norm(
            state, f"{layer}.norm3", queries + _linear(state, f"{layer}.linear2", hidden)
        )
    masks = sum(scores) / len(scores)  # before the softmax, of the last layer
    side = size.image // size.patch
    masks = F.interpolate(
        masks.unflatten(1, (side, side))[None], size=(size.image,) * 2, mode="bilinear"
    )
    result = masks[0].sigmoid()
    result[list(seen)] -= 0.1
    return result


def slide(
    state: Mapping[str, Tensor],
    size: Shape,
    image: Tensor,
    text: Tensor,
    seen: Sequence[int],
    stride: int,
    result: tuple[int, int],
) -> Tensor:
    """Scores (K, *result) of a normalised image (3, H, W), sides of a window or more."""
    crop, (height, width) = size.image, image.shape[1:]
    total, count = torch.zeros(len(text), height, width), torch.zeros(height, width)
    for row in range(max(height - crop + stride - 1, 0) // stride + 1):
        for column in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + crop, height), min(column * stride + crop, width)
            here = slice(bottom - crop, bottom), slice(right - crop, right)
            total[:, here[0], here[1]] += window_scores(
                state, size, image[:, here[0], here[1]], text, seen
            )
            count[here] += 1
    return F.interpolate((total / count)[None], size=result, mode="bilinear")[0]
