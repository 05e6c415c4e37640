"""A training step reads no value of a tensor on its device, which a GPU would be waited for.

Tensors of the device "meta" have no values, so whatever asks for one fails there.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.all_methods import METHODS, TRAINED
from tests.modeling.method_tester import batch
from zss_d2.modeling.measured import collect_measures

MEASURED = {"CLIPZSS": {"glm_retrieval", "glm_retrieval_bank"}}


@pytest.fixture
def meta_without_autocast(monkeypatch):
    """Autocast knows no device "meta"."""
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    def enter(device: str, *args: object, **kwargs: object):
        return contextlib.nullcontext() if device == "meta" else autocast(device, *args, **kwargs)

    monkeypatch.setattr(torch, "autocast", enter)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *d: d != ("meta",) and is_enabled(*d))


KEY = "ZERO_SHOT.SELF_TRAINING."
SETTINGS = {
    "inductive": (),
    "online": ("ZERO_SHOT.SETTING", "transductive", KEY + "QUANTILE", 0.2),
    "ema": ("ZERO_SHOT.SETTING", "transductive", KEY + "SOURCE", "ema", KEY + "AGREEMENT", (1, 2)),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", TRAINED)
def test_a_training_step_works_without_values(make_cfg, meta_without_autocast, method, setting):
    """The pseudo labels of CLIP-ZSS are left out: how many there are gives tensors their sizes."""
    without = ("MODEL.CLIP_ZSS.PSEUDO_WEIGHT", 0.0) if method == "CLIPZSS" else ()
    cfg = make_cfg(*METHODS[method], *without, *SETTINGS[setting])
    model, items = build_model(cfg), batch((64, 64), (64, 80))
    model.train()(items)  # remembers the embeddings of the class names
    with collect_measures() as measured:
        losses = model.to("meta")(items)
    assert {loss.device.type for loss in losses.values()} == {"meta"}
    assert set(measured) == MEASURED.get(method, set())
    assert {value.device.type for x in measured.values() for value in x} <= {"meta"}
    sum(losses.values()).backward()
