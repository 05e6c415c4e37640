"""MSCAN as a registered backbone, with weights that SegNeXt's authors or MMSegmentation publish."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.mscan import MSCAN, SIZES, STAGES
from zss_d2.modeling.methods.clip_zss.students.weights import (
    bare_names,
    load_matching,
    read_weights,
    start_of,
)

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
    "mlp.dwconv": "mlp.1",  # in MMSegmentation's own files
    "mlp.fc2": "mlp.3",
    "norm1": "norms.0",
    "norm2": "norms.1",
}
_BLOCK = re.compile(r"block(\d)\.(\d+)\.(.+)\.(\w+)")
_LAYER_SCALE = re.compile(r"block(\d)\.(\d+)\.layer_scale_[12]")
_STEM = re.compile(r"patch_embed1\.proj\.(.+)")
_DOWNSAMPLE = re.compile(r"patch_embed(\d)\.(proj|norm)\.(\w+)")
_STAGE_NORM = re.compile(r"norm(\d)\.(\w+)")


@BACKBONE_REGISTRY.register()
def build_mscan_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MSCAN:
    """The MSCAN of ``cfg.MODEL.CLIP_ZSS.ENCODER``.

    Raises:
        ZssError: no such size or stage, or weights that are unavailable.
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
    if encoder.PRETRAINED:
        raise ZssError(
            "MODEL.CLIP_ZSS.ENCODER.PRETRAINED is True, but no weights of MSCAN can be downloaded; "
            "set it False and ENCODER.WEIGHTS to a file, such as SegNeXt's mscan_b.pth"
        )
    model = MSCAN(SIZES[encoder.NAME], encoder.OUT_FEATURES or STAGES, encoder.NORM)
    _, path = start_of(cfg)
    if path:
        load_mscan_weights(model, path)
    return model


def load_mscan_weights(model: MSCAN, path: str) -> None:
    """Load a file into ``model``: SegNeXt's, MMSegmentation's, or with our names.

    ImageNet weights or a whole segmenter; its classifier or decode head is left out.

    Raises:
        ZssError: the file is missing, unreadable, or of another model.
    """
    lengths = {number: len(getattr(model, f"stage{number}")) for number in range(1, 5)}
    load_matching(
        model,
        [our_names(bare_names(read_weights(path)), lengths)],
        path,
        remedy="give MSCAN's of size NAME (NORM BN or SyncBN for SegNeXt's)",
    )


def our_names(published: Mapping[str, Tensor], lengths: Mapping[int, int]) -> dict[str, Tensor]:
    """Rename the tensors of a published file; what is no tensor of such a file stays.

    Args:
        published: name -> tensor.
        lengths: stage -> number of its modules, the norm at its end included.
    """
    state = {}
    for name, value in published.items():
        if match := _LAYER_SCALE.fullmatch(name):
            pair = [published.get(f"{name[:-1]}{number}") for number in (1, 2)]
            if None not in pair and pair[0].shape == pair[1].shape:
                name = f"stage{match[1]}.{int(match[2]) + 1}.scales"
                value = torch.stack(pair)[..., None, None]
        elif match := _BLOCK.fullmatch(name):
            stage, block, part, tensor = match.groups()
            if part in _BLOCK_NAMES:
                name = f"stage{stage}.{int(block) + 1}.{_BLOCK_NAMES[part]}.{tensor}"
        elif match := _STEM.fullmatch(name):
            name = f"stage1.0.{match[1]}"
        elif match := _DOWNSAMPLE.fullmatch(name):
            stage, part, tensor = match.groups()
            name = f"stage{stage}.0.{('proj', 'norm').index(part)}.{tensor}"
        elif (match := _STAGE_NORM.fullmatch(name)) and int(match[1]) in lengths:
            name = f"stage{match[1]}.{lengths[int(match[1])] - 1}.{match[2]}"
        state[name] = value
    return state
