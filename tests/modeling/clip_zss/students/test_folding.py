"""A student computes the same in testing as it would with its norms, with fewer operations."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.modeling.clip_zss.students.test_students import overrides
from zss_d2.modeling.methods.clip_zss.students.folding import folded
from zss_d2.modeling.methods.clip_zss.students.mscan import MSCAN, SIZES
from zss_d2.modeling.methods.clip_zss.students.student import (
    LightDecoder,
    StudentEncoder,
    build_student,
)

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def randomised(model: nn.Module) -> nn.Module:
    """Norms with statistics and affine weights of their own, scales that matter."""
    torch.manual_seed(0)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.dim() and "relative" not in name:
            small = value.dim() in (2, 4) and "scales" not in name
            fresh = torch.randn_like(value) if small else torch.rand_like(value) + 0.5
            value.data.copy_(fresh / max(1, value[0].numel()) ** 0.5 if small else fresh)
    return model.eval()


def mscan_student(norm: str = "BN") -> StudentEncoder:
    backbone = MSCAN(SIZES["mini"], norm=norm)
    return randomised(StudentEncoder(backbone, LightDecoder(backbone.output_shape(), 16, 8, norm)))


def plain(student: StudentEncoder, images: torch.Tensor = IMAGES) -> torch.Tensor:
    """With gradients nothing is folded."""
    with torch.enable_grad():
        return student(images).detach()


def in_testing(student: StudentEncoder, images: torch.Tensor = IMAGES) -> torch.Tensor:
    with torch.inference_mode():
        return student(images)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("build_mscan_backbone", "mini"),
        ("build_timm_backbone", "resnet10t"),
        ("build_timm_backbone", "swin_tiny_patch4_window7_224"),
        ("build_smp_backbone", "segformer/mit_b0"),
        ("build_smp_backbone", "fpn/resnet18"),
        ("build_smp_backbone", "deeplabv3plus/resnet18"),
    ],
)
def test_every_kind_of_student_computes_the_same(make_cfg, backbone, name):
    student = build_student(make_cfg(*overrides(backbone, name)), 8)
    student = randomised(student).double()
    expected, got = (f(student, IMAGES.double()) for f in (plain, in_testing))
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN"])
def test_in_single_precision_to_rounding(norm):
    student = mscan_student(norm)
    expected, got = plain(student), in_testing(student)
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_in_half_precision_about_the_same():
    student = mscan_student()
    exact = plain(student)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = plain(student), in_testing(student)
    assert got.dtype == expected.dtype
    errors = [(x.float() - exact).norm() / exact.norm() for x in (expected, got)]
    assert errors[1] < 1.5 * errors[0]
    torch.testing.assert_close(in_testing(student), exact, rtol=1e-4, atol=1e-5)


class Count(TorchDispatchMode):
    """Operations that compute something, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_norms_scales_and_their_sums_are_gone():
    """Of a block of MSCAN there remain 13 convolutions, 2 activations, 4 sums and 2 products."""
    block, x = randomised(MSCAN(SIZES["mini"]).stage1[1]), torch.randn(1, 16, 8, 8)
    counts = []
    for module in (block, folded(block)):
        with torch.no_grad(), Count() as count:
            module(x)
        counts.append(count.names)
    assert "native_batch_norm" in counts[0]
    assert sorted(counts[1]) == sorted(
        ["convolution"] * 13 + ["gelu"] * 2 + ["add"] * 4 + ["mul", "addcmul"]
    )


def test_the_module_itself_is_left_alone():
    student = mscan_student()
    before = copy.deepcopy(student.state_dict())
    in_testing(student)
    after = student.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.requires_grad for p in student.parameters())


def change_in_place(student: StudentEncoder) -> None:
    with torch.no_grad():
        student.decoder.fuse[3].weight.mul_(2)


def change_statistics(student: StudentEncoder) -> None:
    student.backbone.stage1[0][1].running_mean.add_(1)


def train_a_step(student: StudentEncoder) -> None:
    optimizer = torch.optim.SGD(student.train().parameters(), 0.1)
    student(IMAGES).square().mean().backward()
    optimizer.step()
    student.eval()


def load(student: StudentEncoder, assign: bool = False) -> None:
    state = {name: 0.9 * value for name, value in student.state_dict().items()}
    nn.ModuleDict({"student": student}).load_state_dict(
        {f"student.{name}": value for name, value in state.items()}, assign=assign
    )


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_statistics,
        train_a_step,
        load,
        lambda student: load(student, assign=True),
        lambda student: student.double().float(),
    ],
    ids=["in place", "statistics", "training", "loading", "assigning", "moving"],
)
def test_a_change_of_the_weights_is_seen(change):
    student = mscan_student()
    before = in_testing(student)
    assert in_testing(student) is not before
    change(student)
    torch.testing.assert_close(in_testing(student), plain(student), rtol=1e-4, atol=1e-4)


def test_copies_and_pickles_fold_for_themselves():
    student = mscan_student()
    in_testing(student)
    for other in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        change_in_place(other)
        torch.testing.assert_close(in_testing(other), plain(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_weights_lie_as_the_device_wants_them(monkeypatch, layout):
    """Also after they were moved, and in the folded copy."""
    monkeypatch.setattr(MSCAN, "memory_format", staticmethod(lambda device: layout))
    student = mscan_student()
    expected = plain(student)
    for model in (student, student.double().float(), copy.deepcopy(student)):
        in_testing(model)
        for parts in (model, model._copy._parts):
            for name, weight in parts.named_parameters():
                assert weight.dim() != 4 or weight.is_contiguous(memory_format=layout), name
        torch.testing.assert_close(in_testing(model), expected, rtol=1e-4, atol=1e-5)


def test_devices_other_than_a_cpu_and_cuda_have_maps_channel_by_channel():
    assert mscan_student().to("meta").backbone.stage1[1].mlp[1].weight.is_contiguous()


def test_the_folded_copy_is_on_the_device_of_the_weights():
    parts = folded(mscan_student().to("meta"))
    assert {x.device.type for x in (*parts.parameters(), *parts.buffers())} == {"meta"}


def test_a_norm_with_an_activation_of_its_own_stays():
    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), Activated(4)))
    torch.testing.assert_close(folded(module)(IMAGES), module(IMAGES))


def test_light_decoder_is_folded():
    """Into one convolution per map, and the last one."""
    shapes = {"a": ShapeSpec(channels=3, stride=4), "b": ShapeSpec(channels=5, stride=8)}
    decoder = randomised(LightDecoder(shapes, 8, 16, "BN"))
    maps = {"a": torch.randn(2, 3, 8, 6), "b": torch.randn(2, 5, 4, 3)}
    copy_of_it = folded(decoder)
    assert sum(isinstance(part, nn.Conv2d) for part in copy_of_it.modules()) == 3
    torch.testing.assert_close(copy_of_it(maps), decoder(maps), rtol=1e-4, atol=1e-5)


def test_light_decoder_is_one_convolution_over_the_enlarged_stack():
    """As it is written: enlarge, stack, convolve; the code changes the order of these."""
    shapes = {"a": ShapeSpec(channels=3, stride=4), "b": ShapeSpec(channels=5, stride=8)}
    decoder = randomised(LightDecoder(shapes, 8, 16, "BN"))
    maps = {"a": torch.randn(2, 3, 8, 6), "b": torch.randn(2, 5, 4, 3)}
    stack = [
        F.interpolate(conv(maps[name]), (8, 6), mode="bilinear", align_corners=False)
        for name, conv in zip("ab", decoder.lateral, strict=True)
    ]
    expected = decoder.fuse(torch.cat(stack, dim=1))
    torch.testing.assert_close(decoder(maps), expected, rtol=1e-4, atol=1e-5)
