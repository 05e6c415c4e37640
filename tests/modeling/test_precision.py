"""What MODEL.AUTOCAST, MODEL.TF32 and SOLVER.AMP come to on a device."""

from __future__ import annotations

import contextlib

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from zss_d2.config.defaults import default_config, validate_config
from zss_d2.errors import ZssError
from zss_d2.modeling.precision import Precision, has_bfloat16, network_precision

BF16 = torch.bfloat16


@pytest.fixture
def card(monkeypatch):
    """``card(has_bf16)``: let torch say that there is a CUDA device."""

    def pretend(bf16: bool) -> None:
        def supported(including_emulation: bool = True) -> bool:
            return bf16 or including_emulation

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    return pretend


def resolved(**values: object) -> Precision:
    cfg = default_config()
    cfg.merge_from_list([x for key, value in values.items() for x in (key, value)])
    return Precision.from_config(cfg)


def on(device: str, autocast: str = "auto", **others: object) -> Precision:
    return resolved(**{"MODEL.DEVICE": device, "MODEL.AUTOCAST": autocast}, **others)


@pytest.mark.parametrize(
    ("device", "bf16", "choice", "dtype"),
    [
        ("cuda", True, "auto", BF16),
        ("cuda:1", True, "auto", BF16),
        ("cuda", False, "auto", None),
        ("cuda", True, "float32", None),
        ("cuda", True, "", None),
        ("cuda", False, "bfloat16", BF16),
        ("cpu", True, "auto", None),
        ("cpu", True, "bfloat16", BF16),
        ("mps", True, "auto", None),
    ],
)
def test_autocast(card, device, bf16, choice, dtype):
    card(bf16)
    assert on(device, choice).autocast == dtype


def test_the_default_is_auto_and_changes_nothing_without_a_gpu():
    cfg = default_config()
    assert cfg.MODEL.AUTOCAST == "auto"
    assert Precision.from_config(_on_cpu(cfg)) == Precision()
    assert not has_bfloat16(torch.device("cpu"))


def _on_cpu(cfg):
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def test_amp_goes_before_auto_in_trainings_alone(card):
    card(True)
    precision = on("cuda", **{"SOLVER.AMP.ENABLED": True})
    assert (precision.autocast, precision.amp) == (BF16, True)
    assert precision.in_words(training=True) == "float16 by AMP with TF32"
    assert precision.in_words(training=False) == "bfloat16 with TF32"
    assert isinstance(
        Precision(BF16, amp=True).networks(torch.device("cpu"), training=True),
        contextlib.nullcontext,
    )
    with Precision(BF16, amp=True).networks(torch.device("cpu"), training=False):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("choice", ["bfloat16", "float32"])
def test_amp_excludes_another_choice(choice):
    cfg = default_config()
    cfg.merge_from_list(["SOLVER.AMP.ENABLED", True, "MODEL.AUTOCAST", choice])
    with pytest.raises(ZssError, match="only one of them can choose the precision"):
        validate_config(cfg)


@pytest.mark.parametrize(
    ("device", "others", "allowed"),
    [
        ("cuda", {}, True),
        ("cuda", {"MODEL.TF32": False}, False),
        ("cuda", {"MODEL.COMPILE": "inductor"}, None),
        ("cpu", {}, None),
        ("cpu", {"MODEL.TF32": False}, None),
    ],
)
def test_tf32(card, device, others, allowed):
    card(True)
    assert on(device, **others).tf32 is allowed


@pytest.mark.parametrize(("chosen", "allowed"), [("highest", False), ("high", True), ("", True)])
def test_detectron2s_own_key_goes_before_tf32(card, chosen, allowed):
    card(True)
    cfg = default_config()
    cfg.MODEL.DEVICE = "cuda"
    cfg.FLOAT32_PRECISION = chosen  # not in every version
    cfg.MODEL.TF32 = True
    assert Precision.from_config(cfg).tf32 is allowed


def test_tf32_is_switched_for_networks_and_off_for_what_is_single(monkeypatch):
    """On CUDA; torch keeps the switch without a card too."""
    from zss_d2.modeling import precision as module

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    cuda, flag = torch.device("cuda"), torch.backends.cuda.matmul
    before = flag.allow_tf32
    with network_precision(cuda, BF16, True):
        assert flag.allow_tf32
        with module.single_precision(cuda):
            assert not flag.allow_tf32
        assert flag.allow_tf32
    with Precision(tf32=True).outside_networks():
        assert flag.allow_tf32
    with network_precision(cuda, BF16, False):
        assert not flag.allow_tf32
    assert flag.allow_tf32 is before


def test_a_model_says_what_it_computes_in(make_cfg, caplog):
    with caplog.at_level("INFO"):
        model: nn.Module = build_model(make_cfg("MODEL.AUTOCAST", "bfloat16"))
    assert model.precision == Precision(BF16)
    assert "Networks compute in bfloat16 in a training and in bfloat16 in tests" in caplog.text
