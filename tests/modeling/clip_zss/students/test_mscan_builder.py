"""Published MSCAN weights: every tensor arrives at its place."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from safetensors.torch import save_file

from tests.modeling.clip_zss.test_clip_zss import TINY
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.mscan import MSCAN, SIZES

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
WEIGHTS = ("weight", "bias")


def published(model: MSCAN) -> dict[str, torch.Tensor]:
    """The tensors of a model under the names of SegNeXt's files, written out module by module."""
    state = {"head.weight": torch.zeros(1000, 96), "head.bias": torch.zeros(1000)}

    def add(name: str, module: torch.nn.Module, tensors: tuple[str, ...] = WEIGHTS) -> None:
        state.update({f"{name}.{t}": getattr(module, t) for t in tensors})

    for number in range(1, 5):
        down, *blocks, norm = getattr(model, f"stage{number}")
        embed = f"patch_embed{number}"
        if number == 1:
            for index in (0, 3):
                add(f"{embed}.proj.{index}", down[index])
                add(f"{embed}.proj.{index + 1}", down[index + 1], NORM)
        else:
            add(f"{embed}.proj", down[0])
            add(f"{embed}.norm", down[1], NORM)
        for index, block in enumerate(blocks):
            prefix = f"block{number}.{index}"
            first, _, unit, last = block.attention
            add(f"{prefix}.norm1", block.norms[0], NORM)
            add(f"{prefix}.norm2", block.norms[1], NORM)
            add(f"{prefix}.attn.proj_1", first)
            add(f"{prefix}.attn.proj_2", last)
            gate = f"{prefix}.attn.spatial_gating_unit"
            add(f"{gate}.conv0", unit.local)
            add(f"{gate}.conv3", unit.mix)
            for strip, (row, column) in enumerate(unit.strips):
                add(f"{gate}.conv{strip}_1", row)
                add(f"{gate}.conv{strip}_2", column)
            add(f"{prefix}.mlp.fc1", block.mlp[0])
            add(f"{prefix}.mlp.dwconv.dwconv", block.mlp[1])
            add(f"{prefix}.mlp.fc2", block.mlp[3])
            state[f"{prefix}.layer_scale_1"] = block.scales[0].flatten()
            state[f"{prefix}.layer_scale_2"] = block.scales[1].flatten()
        add(f"norm{number}", norm)
    return {name: value.detach().clone() for name, value in state.items()}


@pytest.fixture
def source() -> MSCAN:
    model = MSCAN(SIZES["mini"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def build(make_cfg, path, *overrides) -> MSCAN:
    weights = ("MODEL.CLIP_ZSS.ENCODER.WEIGHTS", str(path), "MODEL.CLIP_ZSS.ENCODER.NORM", "BN")
    return build_backbone(make_cfg(*TINY, *weights, *overrides), ShapeSpec(channels=3))


def mmsegmentation(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """MMSegmentation (0.30 on, and 1.x) has the depth-wise convolution without a module around."""
    return {name.replace(".dwconv.dwconv.", ".dwconv."): x for name, x in state.items()}


def segmenter(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Its backbone and, in the place of a classifier, a decode head."""
    body = {f"backbone.{name}": x for name, x in state.items() if not name.startswith("head.")}
    return body | {"decode_head.conv_seg.weight": torch.zeros(150, 8, 1, 1)}


PUBLISHED = {
    "SegNeXt, ImageNet": lambda x: {"state_dict": x},
    "SegNeXt, ImageNet, flat": lambda x: x,
    "SegNeXt, segmenter": lambda x: {
        "meta": {"mmseg_version": "0.24.1", "CLASSES": ("wall",), "seed": np.int64(0)},
        "state_dict": segmenter(x),
    },
    "SegNeXt, segmenter, flat": segmenter,
    "of a parallel training": lambda x: {f"module.{n}": v for n, v in segmenter(x).items()},
    "MMSegmentation, ImageNet": lambda x: {"state_dict": mmsegmentation(x)},
    "MMSegmentation, ImageNet, flat": mmsegmentation,
    "MMSegmentation, segmenter": lambda x: {"meta": {}, "state_dict": mmsegmentation(segmenter(x))},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_weights_arrive(make_cfg, tmp_path, source, kind):
    path = tmp_path / "mscan.pth"
    torch.save(PUBLISHED[kind](published(source)), path)
    loaded = build(make_cfg, path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.state_dict().items())


def test_own_weights_arrive(make_cfg, tmp_path, source):
    path = tmp_path / "mscan.safetensors"
    save_file(source.state_dict(), path)
    loaded = build(make_cfg, path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.state_dict().items())


def test_a_model_for_inference_needs_no_file(make_cfg, tmp_path):
    assert build(make_cfg, tmp_path / "nothing.pth", "MODEL.CLIP_ZSS.TEACHER", False) is not None


def test_files_that_do_not_fit_name_the_key(make_cfg, tmp_path, source):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save(
        published(source) | {"block1.0.attn.other.weight": torch.zeros(1)}, tmp_path / "x.pth"
    )
    torch.save({"patch_embed1.proj.0.weight": torch.zeros(1)}, tmp_path / "short.pth")
    for name in ("missing.pth", "text.pth", "x.pth", "short.pth"):
        with pytest.raises(ZssError, match="ENCODER.WEIGHTS .*" + name):
            build(make_cfg, tmp_path / name)
