"""Local files of weights for every kind of student: each tensor arrives, or none does."""

import argparse
import logging
import pathlib

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from safetensors.torch import save_file

from tests.modeling.clip_zss.test_clip_zss import TINY
from zss_d2.clip.weights import download
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.weights import match

BUILDERS = {kind: f"build_{kind}_backbone" for kind in ("mscan", "timm", "smp")}


def build(make_cfg, kind: str, name: str, path: object = "", *overrides: object):
    encoder = "MODEL.CLIP_ZSS.ENCODER"
    cfg = make_cfg(
        *(*TINY, "MODEL.BACKBONE.NAME", BUILDERS[kind], f"{encoder}.NAME", name),
        *(f"{encoder}.OUT_FEATURES", [], f"{encoder}.WEIGHTS", str(path), *overrides),
    )
    return build_backbone(cfg, ShapeSpec(channels=3)).eval()


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """No tensor keeps a value that a new model could have as well; variances stay positive."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.1 + 0.01)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        # Names of parts change when only the features are wanted.
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
        "vit_tiny_patch16_224",
        "mobilenetv3_small_050",
    ],
)
def test_a_timm_student_is_the_model_of_its_file(make_cfg, tmp_path, name):
    whole = randomised(timm.create_model(name))
    torch.save({"state_dict": {f"module.{k}": v for k, v in whole.state_dict().items()}, "e": 1},
               tmp_path / "w.pth")  # fmt: skip
    student = build(make_cfg, "timm", name, tmp_path / "w.pth")
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = list(student(images).values())
        expected = whole.forward_intermediates(images, intermediates_only=True)
    for got, want in zip(found, expected[-len(found) :], strict=True):
        torch.testing.assert_close(got, want)


def test_a_file_of_an_older_timm_is_converted(make_cfg, tmp_path):
    name = "swin_tiny_patch4_window7_224"
    whole = randomised(timm.create_model(name))
    old = {}
    for key, value in whole.state_dict().items():
        for stage in (1, 2, 3):
            key = key.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        old[key.replace("head.fc.", "head.")] = value
    save_file(old | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49)},
              tmp_path / "swin.safetensors")  # fmt: skip
    loaded = build(make_cfg, "timm", name, tmp_path / "swin.safetensors").model.state_dict()
    for stage in (1, 2, 3):
        part = "downsample.reduction.weight"
        expected = whole.state_dict()[f"layers.{stage}.{part}"]
        assert torch.equal(loaded[f"layers_{stage}.{part}"], expected)


@pytest.mark.parametrize("name", ["segformer/mit_b0", "fpn/resnet18", "upernet/tu-convnext_atto"])
@pytest.mark.parametrize("part", ["encoder", "whole"])
def test_an_smp_student_takes_its_encoder_or_all_of_it(make_cfg, tmp_path, name, part):
    model = randomised(smp.create_model(*name.split("/"), encoder_weights=None))
    if part == "encoder":
        state = model.encoder.state_dict() | {"fc.weight": torch.zeros(1000, 4)}
    else:
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "w.pt")
    student = build(make_cfg, "smp", name, tmp_path / "w.pt")
    parts = [(student.encoder, model.encoder)]
    parts += [(student.decoder, model.decoder)] if part == "whole" else []
    for got, want in parts:
        want = want.state_dict()
        assert all(torch.equal(value, want[key]) for key, value in got.state_dict().items())


def test_the_file_reaches_the_student_of_the_model(make_cfg, tmp_path, caplog):
    whole = randomised(timm.create_model("resnet10t"))
    torch.save({f"backbone.{k}": v for k, v in whole.state_dict().items()}, tmp_path / "w.bin")
    encoder = "MODEL.CLIP_ZSS.ENCODER"
    overrides = ("MODEL.BACKBONE.NAME", BUILDERS["timm"], f"{encoder}.NAME", "resnet10t")
    with caplog.at_level(logging.INFO):
        model = build_model(
            make_cfg(*TINY, *overrides, f"{encoder}.WEIGHTS", str(tmp_path / "w.bin"))
        )
    student = model.student.backbone.model.state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in student.items())
    assert "left out: fc.weight, fc.bias" in caplog.text


@pytest.mark.parametrize(
    ("kind", "name", "file", "message"),
    [
        # A deeper model has every tensor that the shallower one asks for.
        (
            "timm",
            "resnet18",
            "resnet34",
            r"120 of 120 .* 0 missing, .* 96 unknown, such as layer1\.2\.conv1",
        ),
        ("timm", "resnet34", "resnet18", r"120 of 216 .* 80 missing, .* such as layer1\.2\.conv1"),
        ("timm", "resnet10t", "vit_tiny_patch16_224", r" 0 of .*ENCODER\.NAME"),
        ("smp", "fpn/resnet34", "resnet18", r"120 of 216 .* 80 missing"),
        ("smp", "segformer/mit_b0", "resnet18", r" 0 of "),
        ("mscan", "mini", "resnet18", r" 0 of .*NORM BN"),
    ],
)
def test_a_file_that_fits_in_part_is_an_error(make_cfg, tmp_path, kind, name, file, message):
    path = tmp_path / f"{'long' * 20}_other.pth"
    torch.save(timm.create_model(file).state_dict(), path)
    with pytest.raises(ZssError, match=f"ENCODER.WEIGHTS .*other.pth: of another.*{message}") as e:
        build(make_cfg, kind, name, path)
    assert len(str(e.value)) <= 300


def test_other_shapes_are_counted():
    wanted = {"a.weight": torch.zeros(2, 3), "a.num_batches_tracked": torch.tensor(0)}
    found = match(wanted, {"a.weight": torch.zeros(3, 2), "head.weight": torch.zeros(1)})
    assert (found.matched, found.missing, found.unknown) == (0, [], [])
    assert found.problems == ["a.weight (3, 2) not (2, 3)"]
    assert found.left_out == ["head.weight"]


@pytest.mark.parametrize("kind", ["mscan", "timm", "smp"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "w.pth: no such file"),
        ("a web page", "w.pth: no weights, it begins with b'a web page'"),
        (pathlib.PurePosixPath("x"), "w.pth: holds Python code to run, pathlib.PurePosixPath"),
        ({"epoch": 3, "net": {}}, "w.pth: holds a dict of epoch, net, no tensors"),
        ({"model": 5}, "w.pth: holds a dict of model, no tensors"),
        ([torch.zeros(1)], "w.pth: holds a list"),
    ],
)
def test_what_is_no_file_of_weights_is_named(make_cfg, tmp_path, kind, content, message):
    path = tmp_path / "w.pth"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        torch.save(content, path)
    name = {"mscan": "mini", "timm": "resnet10t", "smp": "fpn/resnet18"}[kind]
    with pytest.raises(ZssError, match=f"ENCODER.WEIGHTS .*{message}") as error:
        build(make_cfg, kind, name, path)
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize(("kind", "name"), [("timm", "resnet10t"), ("smp", "fpn/resnet18")])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(torch.nan), "1 of .* tensors hold NaN or infinity, first '.*conv1.*weight'"),
        (torch.tensor(3, dtype=torch.int8), ".*conv1.* holds int8 numbers, float32 is needed"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make_cfg, tmp_path, kind, name, value, message):
    whole = timm.create_model(name) if kind == "timm" else smp.create_model(*name.split("/"), None)
    state = whole.state_dict()
    first = next(key for key in state if "conv1" in key and key.endswith("weight"))
    state[first] = value.expand_as(state[first]).clone()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ZssError, match=f"ENCODER.WEIGHTS .*w.pth: {message}"):
        build(make_cfg, kind, name, tmp_path / "w.pth")


def test_a_lightning_file_with_its_arguments_is_read(make_cfg, tmp_path):
    whole = randomised(timm.create_model("resnet10t"))
    content = {
        "state_dict": {f"model.{key}": value for key, value in whole.state_dict().items()},
        "pytorch-lightning_version": "2.1.0",
        "hyper_parameters": argparse.Namespace(lr=1.0),
    }
    torch.save(content, tmp_path / "w.ckpt")
    loaded = build(make_cfg, "timm", "resnet10t", tmp_path / "w.ckpt").model.state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in loaded.items())


PRETRAINED = ("MODEL.CLIP_ZSS.ENCODER.PRETRAINED", True)


@pytest.mark.parametrize(("kind", "name"), [("timm", "resnet10t"), ("smp", "fpn/resnet18")])
def test_two_starts_exclude_each_other(make_cfg, kind, name):
    with pytest.raises(ZssError, match="PRETRAINED is True and WEIGHTS is 'w.pth'"):
        build(make_cfg, kind, name, "w.pth", *PRETRAINED)


@pytest.mark.parametrize(
    ("kind", "name", "repo"),
    [
        ("timm", "resnet10t", "timm/resnet10t.c3_in1k"),
        ("smp", "fpn/resnet18", "smp-hub/resnet18.imagenet"),
        ("smp", "fpn/tu-resnet10t", "timm/resnet10t.c3_in1k"),
    ],
)
def test_weights_that_cannot_be_downloaded_are_given_up_at_once(
    make_cfg, monkeypatch, kind, name, repo
):
    """Before the library begins with its half a minute of retries."""

    def unreachable(url):
        assert repo in url
        raise OSError("Name or service not known")

    monkeypatch.setattr(download, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(download, "get_hf_file_metadata", unreachable)
    with pytest.raises(
        ZssError, match="ENCODER.PRETRAINED True for .* cannot be reached .* ENCODER.WEIGHTS to a"
    ):
        build(make_cfg, kind, name, "", *PRETRAINED)


def test_mscan_has_nothing_to_download(make_cfg):
    with pytest.raises(ZssError, match="PRETRAINED is True, but no weights of MSCAN .*WEIGHTS"):
        build(make_cfg, "mscan", "mini", "", *PRETRAINED)


@pytest.mark.parametrize(("kind", "name"), [("timm", "resnet10t"), ("smp", "fpn/resnet18")])
@pytest.mark.parametrize("start", [("w.pth",), ("", *PRETRAINED)])
def test_for_inference_nothing_is_opened_which_is_said(make_cfg, caplog, kind, name, start):
    with caplog.at_level(logging.INFO):
        build(make_cfg, kind, name, *start, "MODEL.CLIP_ZSS.TEACHER", False)
    assert "with TEACHER False the student's weights are those of the checkpoint" in caplog.text


def test_maps_of_a_model_with_one_map_cannot_be_chosen(make_cfg):
    with pytest.raises(ZssError, match=r"OUT_FEATURES is \['stage2'\], but .* one map.*'\[\]'"):
        build(
            *(make_cfg, "smp", "fpn/resnet18", ""),
            *("MODEL.CLIP_ZSS.ENCODER.OUT_FEATURES", ["stage2"]),
        )


@pytest.mark.parametrize(
    ("key", "value"), [("WEIGHTS", "w.pth"), ("PRETRAINED", True), ("OUT_FEATURES", ["res2"])]
)
def test_keys_that_a_backbone_of_detectron2_does_not_read_are_named(make_cfg, key, value):
    def build_like_detectron2(cfg, input_shape):
        raise AssertionError("not reached")

    name = build_like_detectron2.__name__
    build_like_detectron2.__module__ = "detectron2.modeling.backbone.resnet"
    if name not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build_like_detectron2)
    cfg = make_cfg(*TINY, "MODEL.BACKBONE.NAME", name, f"MODEL.CLIP_ZSS.ENCODER.{key}", value)
    with pytest.raises(ZssError, match=f"ENCODER.{key} is .* which {name} does not read"):
        build_model(cfg)


def test_an_error_of_a_library_is_cut_to_a_line(make_cfg):
    with pytest.raises(ZssError, match="segformer/no_such_encoder") as error:
        build(make_cfg, "smp", "segformer/no_such_encoder")
    assert len(str(error.value)) <= 400
