"""MSCAN as a registered backbone, with ImageNet weights as SegNeXt's authors publish them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.encoders.mscan import MSCAN, SIZES, STAGES

# Of a block: published name -> ours. Strip n is a pair of convolutions, conv<n>_1 and conv<n>_2.
_BLOCK_NAMES = {
    "attn.proj_1": "attention.0",
    "attn.spatial_gating_unit.conv0": "attention.2.local",
    **{
        f"attn.spatial_gating_unit.conv{strip}_{part + 1}": f"attention.2.strips.{strip}.{part}"
        for strip in range(3)
        for part in range(2)
    },
    "attn.spatial_gating_unit.conv3": "attention.2.mix",
    "attn.proj_2": "attention.3",
    "mlp.fc1": "mlp.0",
    "mlp.dwconv.dwconv": "mlp.1",
    "mlp.fc2": "mlp.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
}
_BLOCK = re.compile(r"block(\d)\.(\d+)\.(.+)\.(\w+)")
_LAYER_SCALE = re.compile(r"block(\d)\.(\d+)\.layer_scale_1")
_STEM = re.compile(r"patch_embed1\.proj\.(.+)")
_DOWNSAMPLE = re.compile(r"patch_embed(\d)\.(proj|norm)\.(\w+)")
_STAGE_NORM = re.compile(r"norm(\d)\.(\w+)")


@BACKBONE_REGISTRY.register()
def build_mscan_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MSCAN:
    """The MSCAN of ``cfg.MODEL.CLIP_ZSS.ENCODER``.

    Raises:
        ZssError: no such size or stage.
    """
    encoder = cfg.MODEL.CLIP_ZSS.ENCODER
    if encoder.NAME not in SIZES:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.NAME is {encoder.NAME!r}; MSCAN has the sizes "
            f"{', '.join(SIZES)}"
        )
    unknown = set(encoder.OUT_FEATURES) - set(STAGES)
    if unknown:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.OUT_FEATURES names {sorted(unknown)}; MSCAN has "
            f"{', '.join(STAGES)}"
        )
    model = MSCAN(SIZES[encoder.NAME], encoder.OUT_FEATURES or STAGES, encoder.NORM)
    # The checkpoint of a trained student has its own weights.
    if encoder.WEIGHTS and cfg.MODEL.CLIP_ZSS.TEACHER:
        load_mscan_weights(model, encoder.WEIGHTS)
    return model


def load_mscan_weights(model: MSCAN, path: str) -> None:
    """Load a file, SegNeXt's or with our names, into ``model``; its classifier is left out.

    Raises:
        ZssError: the file is missing, unreadable, or of another model.
    """
    try:
        state = our_names(_read(path), {i: len(getattr(model, f"stage{i}")) for i in range(1, 5)})
        model.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.WEIGHTS {path!r} cannot be loaded: {error}; give weights of "
            "MSCAN in the size of ENCODER.NAME, with ENCODER.NORM BN or SyncBN for SegNeXt's own"
        ) from error


def our_names(published: Mapping[str, Tensor], lengths: Mapping[int, int]) -> dict[str, Tensor]:
    """Rename the tensors of a published file; what has our names already stays.

    Args:
        published: name -> tensor; the classifier ``head`` is dropped.
        lengths: stage -> number of its modules, the norm at its end included.
    """
    state = {}
    for name, value in published.items():
        if match := _LAYER_SCALE.fullmatch(name):
            other = published[name.removesuffix("1") + "2"]
            stage, block = match.groups()
            state[f"stage{stage}.{int(block) + 1}.scales"] = torch.stack([value, other])[
                ..., None, None
            ]
        elif name.endswith("layer_scale_2") or name.startswith("head."):
            continue
        elif match := _BLOCK.fullmatch(name):
            stage, block, part, tensor = match.groups()
            state[f"stage{stage}.{int(block) + 1}.{_BLOCK_NAMES[part]}.{tensor}"] = value
        elif match := _STEM.fullmatch(name):
            state[f"stage1.0.{match[1]}"] = value
        elif match := _DOWNSAMPLE.fullmatch(name):
            stage, part, tensor = match.groups()
            state[f"stage{stage}.0.{('proj', 'norm').index(part)}.{tensor}"] = value
        elif match := _STAGE_NORM.fullmatch(name):
            stage, tensor = int(match[1]), match[2]
            state[f"stage{stage}.{lengths[stage] - 1}.{tensor}"] = value
        else:
            state[name] = value
    return state


def _read(path: str) -> Mapping[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("state_dict", content)
