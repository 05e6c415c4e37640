"""The same on CUDA as on a CPU; every body here also runs with the CPU in CUDA's place."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import DEVICES
from tests.modeling.all_methods import METHODS, TRAINED, WITH_VARIANTS
from tests.modeling.method_tester import batch
from zss_d2.analysis.speed import timing
from zss_d2.engine import ZeroShotTrainer
from zss_d2.modeling.inference.graphs import BEFORE_RECORDING

gpu = pytest.mark.gpu
BFLOAT16 = ("MODEL.AUTOCAST", "bfloat16")
FLOAT32 = ("MODEL.AUTOCAST", "float32")
AMP = ("SOLVER.AMP.ENABLED", True)


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """No TF32 in convolutions, which torch has on by default: it keeps ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def pair(make_cfg, method: str, device: str, *overrides: object) -> tuple[nn.Module, nn.Module]:
    """One model on the CPU and a copy of it on the device."""
    torch.manual_seed(0)
    model = build_model(make_cfg(*WITH_VARIANTS[method], *overrides))
    return model, copy.deepcopy(model).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", WITH_VARIANTS)
def test_scores_agree_with_those_of_a_cpu(make_cfg, method, device):
    on_cpu, on_device = pair(make_cfg, method, device)
    for item in batch((64, 64), (40, 90)):
        item = {**item, "height": 70, "width": 101}
        (expected,), (got,) = on_cpu.eval()([item]), on_device.eval()([item])
        assert got["sem_seg"].device.type == device
        torch.testing.assert_close(got["sem_seg"].cpu(), expected["sem_seg"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_images_per_second_are_of_labels_that_are_there(make_cfg, device):
    """On a GPU a call returns before it is done; a measurement waits for it."""
    _, model = pair(make_cfg, "LDVC", device)
    call = timing.labelling(model.eval(), batch((64, 80))[0]["image"])
    labels = call()
    assert labels.shape == (64, 80)
    assert labels.device.type == device
    found = timing.rounds_in_turn({"LDVC": call}, 2, model.device)
    assert len(found["LDVC"]) == 2
    assert all(0 < rate < math.inf for rate in found["LDVC"])
    assert timing.describe_device(model.device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", TRAINED)
def test_losses_and_gradients_agree_with_those_of_a_cpu(make_cfg, method, device):
    items, gradients = batch((64, 64), (40, 90)), []
    on_cpu, on_device = pair(make_cfg, method, device)
    expected, got = on_cpu.train()(items), on_device.train()(items)
    assert got.keys() == expected.keys()
    for name, loss in got.items():
        assert loss.device.type == device
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4), name
    for model, losses in ((on_cpu, expected), (on_device, got)):
        sum(losses.values()).backward()
        of_model = {name: p.grad for name, p in model.named_parameters()}
        gradients.append({name: x.cpu() for name, x in of_model.items() if x is not None})
    assert gradients[0].keys() == gradients[1].keys()
    flat = [torch.cat([gradient.flatten() for gradient in g.values()]) for g in gradients]
    assert (flat[1] - flat[0]).norm() < 1e-3 * flat[0].norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["LDVC-text-prompts", "ZegCLIP"])
def test_bfloat16_stays_near_single_precision(make_cfg, method, device):
    """Route attention sees all windows, so that no choice of windows can turn."""
    every_window = ("MODEL.LDVC.ROUTE_TOPK", 16) if method != "ZegCLIP" else ()
    plain, _ = pair(make_cfg, method, device, *every_window)
    _, half = pair(make_cfg, method, device, *every_window, *BFLOAT16)
    for item in batch((64, 64), (40, 90)):
        (expected,), (got,) = plain.eval()([item]), half.eval()([item])
        assert got["sem_seg"].dtype == torch.float32
        difference = (got["sem_seg"].cpu() - expected["sem_seg"]).abs().max()
        assert 0 < difference < 0.01


@pytest.mark.parametrize(
    ("device", "precision", "dtype"),
    [
        ("cpu", (), torch.float32),
        ("cpu", BFLOAT16, torch.bfloat16),
        pytest.param("cuda", FLOAT32, torch.float32, marks=gpu),
        pytest.param("cuda", BFLOAT16, torch.bfloat16, marks=gpu),
        pytest.param("cuda", AMP, torch.float16, marks=gpu),
    ],
)
@pytest.mark.parametrize("method", TRAINED)
def test_a_training_runs_and_is_tested(toy_voc, make_cfg, method, device, precision, dtype):
    """The network computes in the precision that was asked for; its weights stay in single.

    With AMP the first steps may overflow while it looks for a scale.
    """
    steps = 12 if precision == AMP else 2
    cfg = make_cfg(
        *(*METHODS[method], *precision, "MODEL.DEVICE", device, "SOLVER.MAX_ITER", steps),
        *("DATALOADER.NUM_WORKERS", 0),
    )
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = ZeroShotTrainer(cfg)
    seen: set[torch.dtype] = set()
    model = trainer.model
    part = model.student if method == "CLIPZSS" else model.decoder
    watch_training(model, part, seen)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in learning.items()}
    trainer.train()

    assert dtype in seen
    assert seen <= {dtype, torch.float32}
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in learning.values())
    assert all(p.device.type == device for p in learning.values())
    assert any(not torch.equal(p, start[name]) for name, p in learning.items())
    assert np.isfinite(trainer.storage.latest()["total_loss"][0])
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    assert 0 <= results["zss_voc_val"]["pAcc"] <= 100
    expected = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    assert results["provenance"]["device"] == expected
    assert results["provenance"]["precision"] == model.precision.in_words(training=False)


def watch_training(model: nn.Module, part: nn.Module, seen: set[torch.dtype]) -> None:
    """Note what the matrix products and convolutions of ``part`` give in training."""
    for module in part.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(
                lambda _, __, output: seen.add(output.dtype) if model.training else None
            )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_counts_the_same_pixels(toy_voc, make_cfg, tmp_path, method, device):
    """But for those whose two best classes are as good as equal; some tests look at windows."""
    counts = []
    for name, model in zip("ab", pair(make_cfg, method, device), strict=True):
        cfg = make_cfg(
            *(*METHODS[method], "OUTPUT_DIR", str(tmp_path / name), "DATALOADER.NUM_WORKERS", 0),
            *("TEST.SLIDE.ENABLED", True, "TEST.SLIDE.CROP", 128, "TEST.SLIDE.STRIDE", 96),
        )
        ZeroShotTrainer.test(cfg, model)
        with np.load(tmp_path / name / "confusion_zss_voc_val.npz") as stored:
            counts.append(stored["confusion"].astype(int))
    assert counts[0].sum() == counts[1].sum() > 0
    assert np.abs(counts[0] - counts[1]).sum() < 0.01 * counts[0].sum()


class Waits(TorchDispatchMode):
    """Refuses what has a CPU wait for the value of a tensor, on any device.

    Not comparisons of whole tensors: prompts of a text tower on a CPU are compared.
    """

    NAMES = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.NAMES
        return func(*args, **(kwargs or {}))


@contextmanager
def nobody_waits(device: str) -> Iterator[None]:
    with Waits():
        if device != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("windows", [False, True])
def test_a_test_waits_for_no_value(toy_voc, make_cfg, method, device, windows):
    """Of anything on the GPU, from the images to the counts; once embeddings are there."""
    cfg = make_cfg(
        *(*METHODS[method], "MODEL.DEVICE", device, "TEST.BATCH", 4, "TEST.SEEN_BIAS", 0.1),
        *("TEST.FLIP", windows, "TEST.SCALES", (1.0, 0.75) if windows else (1.0,)),
        *("TEST.SLIDE.ENABLED", windows, "TEST.SLIDE.CROP", 128, "TEST.SLIDE.STRIDE", 96),
        *("DATALOADER.NUM_WORKERS", 0),
    )
    model = build_model(cfg).eval()
    inputs = next(iter(ZeroShotTrainer.build_test_loader(cfg, "zss_voc_val")))
    evaluator = ZeroShotTrainer.build_evaluator(cfg, "zss_voc_val")
    for names in (model.classes, (*model.classes[1:], model.classes[0])):
        named = [{**item, "vocabulary": names} for item in inputs]
        with torch.inference_mode():
            model(named)
            with nobody_waits(device):
                evaluator.process(named, model(named))
    assert len(evaluator._done) == 2 * len(inputs)


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", ()), *(pytest.param("cuda", x, marks=gpu) for x in ((), BFLOAT16))],
)
@pytest.mark.parametrize("method", METHODS)
def test_replayed_launches_give_what_the_network_gives(make_cfg, method, device, precision):
    """Also once the weights have changed, and with word lists in turns."""
    _, plain = pair(make_cfg, method, device, *precision)
    _, model = pair(make_cfg, method, device, *precision, "TEST.CUDA_GRAPHS", True, "TEST.BATCH", 2)
    model.load_state_dict(plain.state_dict())
    model, plain = model.eval(), plain.eval()
    items = batch((64, 64), (64, 64), (64, 64))
    rounding = {"atol": 0.01, "rtol": 0} if precision else {"atol": 1e-4, "rtol": 1e-4}
    for _ in range(2):
        for names in (model.classes, ("dog", "cat", "sheep")):
            named = [{**item, "vocabulary": names} for item in items]
            with torch.inference_mode():
                expected = plain(named)
                for _ in range(BEFORE_RECORDING + 2 if device == "cuda" else 1):
                    results = model(named)
            for one, other in zip(results, expected, strict=True):
                torch.testing.assert_close(one["sem_seg"], other["sem_seg"], **rounding)
        assert len(model._graphs) == (4 if device == "cuda" else 0)
        with torch.no_grad():
            for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                one.mul_(1.001)
                other.mul_(1.001)


@pytest.mark.parametrize("device", DEVICES)
def test_shapes_that_threads_count_are_those_of_a_cpu(toy_voc, make_cfg, device):
    """Labels are sent while the next ones are made: none may be read before it has arrived."""
    cfg = make_cfg("DATALOADER.NUM_WORKERS", 0, "TEST.FRAGMENTATION", True)
    items = [
        item for batch in ZeroShotTrainer.build_test_loader(cfg, "zss_voc_val") for item in batch
    ]
    scores = [torch.rand(20, item["height"], item["width"]) for item in items]
    results = []
    for where in ("cpu", device):
        evaluator = ZeroShotTrainer.build_evaluator(cfg, "zss_voc_val")
        for item, score in zip(items, scores, strict=True):
            evaluator.process([item], [{"sem_seg": score.to(where)}])
        results.append(evaluator.evaluate()["sem_seg"])
    assert "pieces-U" in results[0]
    assert results[1] == pytest.approx(results[0], abs=0, nan_ok=True)


@gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_images_are_those_of_the_stream(toy_voc, make_cfg, workers):
    found = []
    for device in ("cpu", "cuda"):
        cfg = make_cfg("MODEL.DEVICE", device, "DATALOADER.NUM_WORKERS", workers)
        training = ZeroShotTrainer.build_train_loader(cfg)
        training.stream.position = 4 * 3
        batches = [*islice(training, 3), *ZeroShotTrainer.build_test_loader(cfg, "zss_voc_val")]
        found.append([item for batch in batches for item in batch])
    for expected, got in zip(*found, strict=True):
        assert got["file_name"] == expected["file_name"]
        for name in {"image", "sem_seg"} & set(expected):
            assert torch.equal(got[name], expected[name])
            assert (expected[name].is_pinned(), got[name].is_pinned()) == (False, True)


@gpu
@pytest.mark.parametrize("precision", [(), BFLOAT16, AMP])
def test_the_optimizer_is_fused_and_a_run_may_change_its_device(toy_voc, make_cfg, precision):
    """Steps are counted where the optimizer wants them: on the GPU if it is fused, else not."""

    def train(device: str, iterations: int) -> ZeroShotTrainer:
        cfg = make_cfg(
            *("MODEL.DEVICE", device, "SOLVER.MAX_ITER", iterations, "SOLVER.ACCUMULATE", 2),
            *("SOLVER.CLIP_GRADIENTS.ENABLED", True, "DATASETS.TEST", ()),
            *("DATALOADER.NUM_WORKERS", 0, *(precision if device == "cuda" else ())),
        )
        Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
        trainer = ZeroShotTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
        return trainer

    for device, iterations in (("cuda", 2), ("cpu", 4), ("cuda", 6)):
        trainer = train(device, iterations)
        states = trainer.optimizer.state.values()
        assert {int(state["step"]) for state in states} <= set(range(iterations + 1))
        assert {state["step"].device.type for state in states} == {device}
        assert {bool(g["fused"]) for g in trainer.optimizer.param_groups} == {device == "cuda"}
        learning = [p for p in trainer.model.parameters() if p.requires_grad]
        assert all(p.isfinite().all() for p in learning)
    assert trainer.storage.latest()["max_mem"][0] > 0
