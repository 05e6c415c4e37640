"""CLIP weights in the formats that they are released in, made small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from open_clip.model import convert_weights_to_fp16
from torch import Tensor, nn

from zss_d2.clip import ClipTowers, ImageEncoder
from zss_d2.clip.towers import assemble_towers

_FACTS = {"input_resolution": 128, "context_length": 77, "vocab_size": 49408}
# (open_clip, transformers)
_BLOCK = (
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_REST = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}


def tiny_clip(quick_gelu: bool) -> open_clip.CLIP:
    """Random weights that fp16 holds exactly, as those of OpenAI's files; large activations."""
    clip = open_clip.create_model("zss-tiny", force_quick_gelu=quick_gelu)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.mul_(3).copy_(parameter.half())
    return clip.eval().requires_grad_(False)


def towers_of(clip: open_clip.CLIP) -> ClipTowers:
    """Its towers, without a way through a file."""
    image = ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0)
    return assemble_towers(clip, image, "zss-tiny")


@torch.no_grad()
def features(towers: ClipTowers) -> tuple[Tensor, Tensor]:
    """Of two images (2, C) and two sentences (2, C), always the same."""
    images = torch.linspace(-2, 2, 2 * 3 * 128 * 128).sin().view(2, 3, 128, 128)
    tokens = towers.text.tokenizer(["a dog", "two cats"])
    return towers.image(images).cls, towers.text.encode(tokens)


def half_as_openai(clip: open_clip.CLIP) -> dict[str, Tensor]:
    """The state dict as OpenAI's code makes it: matrices in fp16, embeddings and norms in fp32."""
    half = open_clip.create_model("zss-tiny")
    half.load_state_dict(clip.state_dict())
    convert_weights_to_fp16(half)
    return half.state_dict()


def openai_state(clip: open_clip.CLIP) -> dict[str, Tensor]:
    """The state dict of OpenAI's archive, with the three facts that it holds beside the weights."""
    return half_as_openai(clip) | {key: torch.tensor(value) for key, value in _FACTS.items()}


def save_archive(state: Mapping[str, Tensor], path: Path) -> None:
    """A TorchScript archive whose modules hold a state dict."""
    torch.jit.script(_as_module(state)).save(str(path))


class _Writer(nn.Module):
    """Restored by code that opens a file for writing; its path is in the archive."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return (self.path, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.path = state[0]
        self.weight = state[1]
        self.training = state[2]
        print(torch.from_file(self.path, True, 4).size())

    def forward(self) -> Tensor:
        return self.weight


def save_archive_that_writes(target: Path, path: Path) -> None:
    """A TorchScript archive that creates ``target`` when `torch.jit.load` reads it."""
    torch.jit.script(_Writer(str(target))).save(str(path))


def _as_module(state: Mapping[str, Tensor]) -> nn.Module:
    module, below = nn.Module(), {}
    for key, value in state.items():
        child, _, rest = key.partition(".")
        if rest:
            below.setdefault(child, {})[rest] = value
        elif value.is_floating_point():
            module.register_parameter(child, nn.Parameter(value, requires_grad=False))
        else:
            module.register_buffer(child, value)
    for child, inside in below.items():
        module.add_module(child, _as_module(inside))
    return module


def transformers_state(clip: open_clip.CLIP) -> dict[str, Tensor]:
    """The state dict of a ``CLIPModel`` with these weights."""
    state = clip.state_dict()
    named = {theirs: state[ours] for ours, theirs in _REST.items()}
    named["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    named["text_projection.weight"] = state["text_projection"].T.contiguous()
    for tower, theirs, depth in (("visual.", "vision_model", 3), ("", "text_model", 2)):
        named[f"{theirs}.embeddings.position_ids"] = torch.arange(65)[None]
        for index in range(depth):
            ours = f"{tower}transformer.resblocks.{index}"
            layer = f"{theirs}.encoder.layers.{index}"
            for kind in ("weight", "bias"):
                parts = state[f"{ours}.attn.in_proj_{kind}"].chunk(3)
                for letter, part in zip("qkv", parts, strict=True):
                    named[f"{layer}.self_attn.{letter}_proj.{kind}"] = part.clone()
                for old, new in _BLOCK:
                    named[f"{layer}.{new}.{kind}"] = state[f"{ours}.{old}.{kind}"]
    return named


def transformers_config(*activations: str) -> str:
    """``config.json`` of the tiny CLIP, with the activations of the text and the image tower."""
    text, image = activations
    vision = {"hidden_size": 64, "patch_size": 16, "hidden_act": image}
    towers = {"text_config": {"hidden_act": text}, "vision_config": vision}
    return json.dumps({"model_type": "clip", "projection_dim": 64, **towers})


def open_clip_config(quick_gelu: bool, **preprocess: object) -> str:
    """``open_clip_config.json`` of the tiny CLIP."""
    model = open_clip.get_model_config("zss-tiny") | {"quick_gelu": quick_gelu}
    return json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
