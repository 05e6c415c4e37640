"""Student encoders: shapes and strides they promise, MSCAN against its paper, errors."""

import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.conftest import ROOT
from tests.modeling.clip_zss.test_clip_to_seg import C2S
from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.method_tester import batch
from zss_d2.engine import load_config
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.mscan import (
    MSCAN,
    SIZES,
    Block,
    MultiScaleAttention,
)
from zss_d2.modeling.methods.clip_zss.students.norm import build_norm, synchronised
from zss_d2.modeling.methods.clip_zss.students.student import LightDecoder, build_student

ENCODERS = [
    ("build_mscan_backbone", "mini"),
    ("build_mscan_backbone", "T"),
    ("build_timm_backbone", "resnet10t"),
    ("build_timm_backbone", "convnext_atto"),
    ("build_timm_backbone", "swin_tiny_patch4_window7_224"),
    ("build_timm_backbone", "vit_tiny_patch16_224"),
    ("build_smp_backbone", "segformer/mit_b0"),
    ("build_smp_backbone", "upernet/resnet18"),
    ("build_smp_backbone", "deeplabv3plus/resnet18"),
    ("build_smp_backbone", "fpn/resnet18"),
]


def overrides(backbone: str, name: str) -> tuple:
    return (*TINY, "MODEL.BACKBONE.NAME", backbone, "MODEL.CLIP_ZSS.ENCODER.NAME", name)


@pytest.mark.parametrize(("backbone", "name"), ENCODERS)
def test_features_are_as_the_backbone_promises(make_cfg, backbone, name):
    model = build_backbone(make_cfg(*overrides(backbone, name)), ShapeSpec(channels=3)).eval()
    sides = [-(-side // model.size_divisibility) * model.size_divisibility for side in (70, 100)]
    with torch.no_grad():
        features = model(torch.randn(1, 3, *sides))
    assert set(features) == set(model.output_shape())
    for key, shape in model.output_shape().items():
        expected = (1, shape.channels, *(side // shape.stride for side in sides))
        assert features[key].shape == expected, key


@pytest.mark.parametrize(("backbone", "name"), [ENCODERS[i] for i in (0, 3, 6)])
def test_any_encoder_trains(make_cfg, backbone, name):
    model = build_model(make_cfg(*overrides(backbone, name))).train()
    losses = model(batch((64, 64), (40, 70)))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    assert model.eval()(batch((50, 70)))[0]["sem_seg"].shape == (20, 50, 70)


def test_setr_is_a_plain_transformer_with_two_convolutions_on_its_last_block(make_cfg):
    """configs/clip_to_seg_voc_setr.yaml, with a small ViT."""
    published = load_config(ROOT / "configs/clip_to_seg_voc_setr.yaml").MODEL.CLIP_ZSS.ENCODER
    own = {"NAME": "vit_tiny_patch16_224", "PRETRAINED": False, "CHANNELS": 32}
    encoder = {**published, **own, "NORM": "GN"}
    opts = [part for key, x in encoder.items() for part in (f"MODEL.CLIP_ZSS.ENCODER.{key}", x)]
    model = build_model(make_cfg(*C2S, "MODEL.BACKBONE.NAME", "build_timm_backbone", *opts)).train()
    assert list(model.student.backbone.output_shape()) == ["stage3"]
    assert model.size_divisibility == 16
    with torch.no_grad():
        features = model.student.backbone(torch.randn(1, 3, 48, 80))["stage3"]
        dense = model.student(torch.randn(1, 3, 48, 80))
    assert features.shape == (1, 192, 3, 5)
    assert dense.shape == (1, 64, 3, 5)
    convolutions = [m for m in model.student.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.kernel_size == (1, 1) for m in convolutions)
    sum(model(batch((64, 64), (40, 70))).values()).backward()
    assert all(p.grad is not None for p in model.student.parameters())


def test_a_backbone_from_elsewhere_needs_no_change_here(make_cfg):
    class Pyramid(Backbone):
        """Coarse map first, as an FPN may have it."""

        def __init__(self):
            super().__init__()
            self.coarse, self.fine = torch.nn.Conv2d(3, 8, 8, 8), torch.nn.Conv2d(3, 4, 4, 4)
            self._out_features = ["p3", "p2"]
            self._out_feature_channels = {"p3": 8, "p2": 4}
            self._out_feature_strides = {"p3": 8, "p2": 4}

        def forward(self, images):
            return {"p3": self.coarse(images), "p2": self.fine(images)}

    def build_pyramid_for_test(cfg, input_shape):
        return Pyramid()

    if build_pyramid_for_test.__name__ not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build_pyramid_for_test)
    model = build_model(make_cfg(*TINY, "MODEL.BACKBONE.NAME", "build_pyramid_for_test"))
    assert model.size_divisibility == 8
    assert model.student(torch.randn(1, 3, 16, 24)).shape == (1, 64, 4, 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "millions"),
    # The paper's table of ImageNet models: parameters, with a classifier of 1000 classes.
    [("T", 4.2), ("S", 14.0), ("B", 26.8), ("L", 45.2)],
)
def test_published_size_of_mscan(size, millions):
    model = MSCAN(SIZES[size])
    classifier = 1001 * SIZES[size].dims[-1]
    count = sum(p.numel() for p in model.parameters()) + classifier
    assert count / 1e6 == pytest.approx(millions, abs=0.15)


def test_attention_is_a_product_of_its_input_with_depthwise_neighbourhoods():
    """Equations 1 and 2: channel by channel, with dense kernels in the place of strips."""
    module, x = MultiScaleAttention(3).double(), torch.randn(2, 3, 30, 26, dtype=torch.float64)
    conv = torch.nn.functional.conv2d
    for layer in [m for strip in module.strips for m in strip]:
        torch.nn.init.zeros_(layer.bias)
    scales = []
    for channel in range(3):
        local = conv(
            x[:, channel : channel + 1],
            module.local.weight[channel : channel + 1],
            module.local.bias[channel : channel + 1],
            padding=2,
        )
        total = local
        for row, column in module.strips:
            # A row after a column is the dense kernel of their outer product.
            kernel = column.weight[channel, 0] @ row.weight[channel, 0]
            total = total + conv(local, kernel[None, None], padding=kernel.shape[0] // 2)
        scales.append(total)
    attention = torch.einsum("oi,bihw->bohw", module.mix.weight[..., 0, 0], torch.cat(scales, 1))
    attention = attention + module.mix.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(module(x), x * attention)


def test_stochastic_depth_keeps_the_mean_and_rests_in_evaluation():
    block, x = Block(4, 2, 0.5, "GN"), torch.randn(400, 4, 3, 3)
    update = torch.ones_like(x)
    kept = block.train().drop_path(update)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean() == pytest.approx(1, abs=0.2)
    assert torch.equal(block.eval().drop_path(update), update)
    assert torch.equal(block(x[:1]), block(x)[:1])


def test_the_decoder_gives_the_finest_size_whatever_the_order():
    shapes = {"b": ShapeSpec(channels=5, stride=8), "a": ShapeSpec(channels=3, stride=4)}
    features = {"b": torch.randn(2, 5, 4, 6), "a": torch.randn(2, 3, 8, 12)}
    assert LightDecoder(shapes, 8, 16, "GN")(features).shape == (2, 16, 8, 12)


@pytest.mark.parametrize("name", ["BN", "SyncBN", "GN"])
def test_norms(name):
    assert build_norm(name, 48).eval() is not None
    assert sum(p.numel() for p in build_norm(name, 48).parameters()) == 96


@pytest.mark.parametrize(
    ("backbone", "name", "message"),
    [
        ("build_mscan_backbone", "XL", "MSCAN has the sizes"),
        ("build_timm_backbone", "no_such_model", "timm.list_models"),
        ("build_smp_backbone", "segformer", "such as 'segformer/mit_b2'"),
        ("build_nothing", "T", "build_mscan_backbone"),
    ],
)
def test_unknown_encoders_name_the_remedy(make_cfg, backbone, name, message):
    with pytest.raises(ZssError, match=message):
        build_model(make_cfg(*overrides(backbone, name)))


@pytest.mark.parametrize(
    ("backbone", "name"), [("build_mscan_backbone", "T"), ("build_timm_backbone", "resnet10t")]
)
def test_unknown_features_are_named(make_cfg, backbone, name):
    cfg = make_cfg(*overrides(backbone, name), "MODEL.CLIP_ZSS.ENCODER.OUT_FEATURES", ["stage9"])
    with pytest.raises(ZssError, match="stage9"):
        build_model(cfg)


def test_an_unknown_norm_names_the_key(make_cfg):
    with pytest.raises(ZssError, match="ENCODER.NORM is 'IN'"):
        build_model(make_cfg(*TINY, "MODEL.CLIP_ZSS.ENCODER.NORM", "IN"))


def of_two_processes(monkeypatch) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [ENCODERS[0], ENCODERS[7], ("build_timm_backbone", "mobilenetv3_small_050")],
)
def test_synchronised_norms_change_neither_weights_nor_scores(
    make_cfg, monkeypatch, backbone, name
):
    """timm's norms hold activations, which torch's own conversion would lose."""
    torch.manual_seed(0)
    norm = ("MODEL.CLIP_ZSS.ENCODER.NORM", "BN")
    plain = build_student(make_cfg(*overrides(backbone, name), *norm), 16).eval()
    before, images = plain.state_dict(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain(images)
        of_two_processes(monkeypatch)
        converted = synchronised(copy.deepcopy(plain), "auto", "cuda")
        torch.testing.assert_close(converted(images), expected)
    kinds = {type(m) for m in converted.modules() if isinstance(m, _BatchNorm)}
    assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert kinds
    after = converted.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    plain.load_state_dict(after)
    assert synchronised(plain, "false", "cuda") is plain


def test_where_norms_cannot_be_synchronised_it_is_said(make_cfg, monkeypatch, caplog):
    caplog.set_level("INFO")
    student = nn.Sequential(nn.BatchNorm2d(4))
    assert synchronised(student, "auto", "cuda") is student
    assert caplog.text == ""
    assert synchronised(student, "true", "cuda") is student
    assert "SYNC_BN true has no effect: there is one process" in caplog.text
    of_two_processes(monkeypatch)
    assert synchronised(student, "auto", "cpu") is student
    assert "each process's own images" in caplog.text
    with pytest.raises(ZssError, match="SYNC_BN is true, which 2 processes can have on GPUs only"):
        synchronised(student, "true", "cpu")
    with pytest.raises(ZssError, match="ENCODER.NORM is SyncBN, which 2 processes"):
        build_model(make_cfg(*TINY, "MODEL.CLIP_ZSS.ENCODER.NORM", "SyncBN"))
    with pytest.raises(ZssError, match="SYNC_BN is false, and ENCODER.NORM is SyncBN; set NORM BN"):
        synchronised(nn.Sequential(nn.SyncBatchNorm(4)), "false", "cuda")
    assert isinstance(synchronised(student, "auto", "cuda")[0], nn.SyncBatchNorm)
    synchronised(nn.Sequential(nn.GroupNorm(1, 4)), "true", "cuda")
    assert "has no effect: the student has no batch norm" in caplog.text
