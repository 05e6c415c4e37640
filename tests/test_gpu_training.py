"""Training steps on a GPU; every body here also runs with the CPU in CUDA's place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from detectron2.modeling import build_model

from tests.conftest import DEVICES
from tests.modeling.all_methods import METHODS, TRAINED
from tests.modeling.clip_zss.test_clip_to_seg import ATTENTION, C2S
from tests.modeling.method_tester import batch
from tests.test_gpu import BFLOAT16, FLOAT32, gpu


@gpu
def test_the_default_is_bfloat16_where_the_card_has_it(make_cfg):
    has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    model = build_model(make_cfg("MODEL.DEVICE", "cuda"))
    assert model.precision.autocast == (torch.bfloat16 if has_it else None)
    assert model.precision.tf32


@contextmanager
def waits_for(device: str) -> Iterator[list[str]]:
    """Fills a list with what makes the CPU wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
    found: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found += [str(w.message) for w in caught if "synchronizing CUDA" in str(w.message)]
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("method", TRAINED)
def test_a_training_step_does_not_wait_for_the_gpu(make_cfg, method, precision, device):
    """But CLIP-ZSS, twice: the number of pseudo regions gives tensors their sizes."""
    model = build_model(make_cfg(*METHODS[method], *precision, "MODEL.DEVICE", device)).train()
    items = batch((64, 64), (40, 90))
    sum(model(items).values()).backward()
    with waits_for(device) as found:
        sum(model(items).values()).backward()
    assert len(found) <= (2 if method == "CLIPZSS" else 0), found


@pytest.mark.parametrize("device", DEVICES)
def test_self_training_does_not_wait_for_the_gpu(make_cfg, device):
    """A teacher, several views and quantiles; and its pseudo labels are those of a CPU."""
    key = "ZERO_SHOT.SELF_TRAINING."
    settings = (key + "SOURCE", "ema", key + "AGREEMENT", (1.0, 0.5), key + "QUANTILE", 0.1)
    transductive = ("ZERO_SHOT.SETTING", "transductive", *settings, *FLOAT32)
    model = build_model(make_cfg(*METHODS["LDVC"], *transductive, "MODEL.DEVICE", device)).train()
    items = batch((64, 64), (40, 90))
    model.self_training.begin(model, 0)
    sum(model(items).values()).backward()
    with waits_for(device) as found:
        model.self_training.begin(model, 1)
        sum(model(items).values()).backward()
    assert found == []
    pixels, *labelled = model.self_training.taken_counts()
    assert 0 < sum(labelled) <= pixels


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("overrides", "waits"), [(C2S, 3), (ATTENTION, 2)], ids=["passes", "attention"]
)
def test_c2s_waits_once_more_for_which_regions_there_are(make_cfg, overrides, waits, device):
    """To make no pass for those that there are not; by attention all slots are computed."""
    model = build_model(make_cfg(*overrides, *BFLOAT16, "MODEL.DEVICE", device)).train()
    items = batch((64, 64), (40, 90))
    sum(model(items).values()).backward()
    with waits_for(device) as found:
        losses = model(items)
        sum(losses.values()).backward()
    assert len(found) <= waits, found
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["LDVC", "ZegCLIP"])
def test_a_checkpointed_training_step_gives_the_same_gradients(make_cfg, method, device):
    """In TF32 too, which the backward pass must compute the blocks with as well."""
    gradients = []
    for checkpointed in (False, True):
        cfg = make_cfg(
            *(*METHODS[method], *FLOAT32, "MODEL.DEVICE", device),
            *("MODEL.CHECKPOINT_BLOCKS", checkpointed),
        )
        torch.manual_seed(0)
        model = build_model(cfg).train()
        torch.manual_seed(1)
        with model.precision.outside_networks():
            sum(model(batch((64, 64))).values()).backward()
        of_model = (p.grad for p in model.parameters() if p.grad is not None)
        gradients.append(torch.cat([gradient.flatten() for gradient in of_model]))
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()
