"""GLM against one image at a time, its bank, and two processes against one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch.nn import functional as F

from zss_d2.modeling.measured import collect_measures
from zss_d2.modeling.methods.clip_zss.glm import GLM, predict_cls, retrieval

DIM, BANK, TEMPERATURE = 6, 5, 0.3


def slow_prediction(cls, features):
    """One image: S (C,), R (C, L) -> S_hat (C,)."""
    scores = [math.exp(float(cls @ features[:, i]) / DIM**0.5) for i in range(features.shape[1])]
    total = sum(scores)
    return sum(score / total * features[:, i] for i, score in enumerate(scores))


def slow_loss(cls, features, bank):
    """Mean over images; ``bank`` is a list of earlier tokens (C,)."""
    losses = []
    for index, (own, dense) in enumerate(zip(cls, features.flatten(2), strict=True)):
        predicted = slow_prediction(own, dense)
        keys = [*cls, *bank]
        terms = [math.exp(F.cosine_similarity(predicted, key, dim=0) / TEMPERATURE) for key in keys]
        losses.append(-math.log(terms[index] / sum(terms)))
    return sum(losses) / len(losses)


def draw(step: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    cls = torch.randn(batch, DIM, generator=generator)
    return cls, torch.randn(batch, DIM, 2, 3, generator=generator)


def test_prediction_equals_the_slow_reference():
    cls, features = draw(0, 4)
    got = predict_cls(cls, features.flatten(2))
    for index in range(4):
        expected = slow_prediction(cls[index], features[index].flatten(1))
        torch.testing.assert_close(got[index], expected)


def test_loss_equals_the_slow_reference_while_the_bank_fills_and_forgets():
    module, bank = GLM(DIM, BANK, TEMPERATURE), []
    for step in range(4):
        cls, features = draw(step, 3)
        assert float(module(cls, features)) == pytest.approx(slow_loss(cls, features, bank), 1e-4)
        bank = [*cls, *bank][:BANK]
        torch.testing.assert_close(module.bank, F.normalize(torch.stack(bank), dim=1))


def test_without_a_bank_one_image_has_no_negatives():
    module = GLM(DIM, 0, TEMPERATURE)
    cls, features = draw(0, 1)
    for _ in range(2):
        assert module(cls, features) == 0
    assert module.bank.shape == (0, DIM)


def test_one_colour_images_give_finite_gradients():
    features = torch.zeros(2, DIM, 2, 2, requires_grad=True)
    GLM(DIM, BANK, TEMPERATURE)(draw(0, 2)[0], features).backward()
    assert features.grad.isfinite().all()


def test_the_bank_is_no_part_of_a_checkpoint():
    assert not GLM(DIM, BANK, TEMPERATURE).state_dict()


def test_retrieval_by_hand():
    """The first two find their own keys, the third is nearer to another one: two of three."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    predicted = torch.tensor([[5.0, 1.0], [-0.1, 3.0], [1.0, 2.0]])
    own = torch.tensor([0, 1, 2])
    assert float(retrieval(predicted, keys, own)) == pytest.approx(200 / 3)
    assert float(retrieval(predicted[2:], keys, torch.tensor([1]))) == 100


def test_ties_are_misses():
    keys = F.normalize(torch.randn(4, DIM), dim=1)
    own = torch.arange(4)
    assert retrieval(torch.zeros(4, DIM), keys, own) == 0
    twice = torch.cat([keys, keys[:1]])
    assert retrieval(keys, twice, own) == 75


def test_retrieval_is_measured_among_the_batch_and_with_the_bank():
    """Against one cosine after another; the first step has no bank, a lone image no others."""
    module, bank = GLM(DIM, BANK, TEMPERATURE), []
    for step in range(4):
        cls, features = draw(step, 3)
        with collect_measures() as found:
            loss = module(cls, features)
        assert loss == GLM.forward(_with_bank(bank), cls, features)  # measured or not
        for name, keys in (("glm_retrieval", [*cls]), ("glm_retrieval_bank", [*cls, *bank])):
            hits = 0
            for index, dense in enumerate(features.flatten(2)):
                predicted = slow_prediction(cls[index], dense)
                cosine = [float(F.cosine_similarity(predicted, key, dim=0)) for key in keys]
                hits += cosine.index(max(cosine)) == index
            if bank or name == "glm_retrieval":
                assert [float(x) for x in found.pop(name)] == pytest.approx([100 * hits / 3])
        assert not found
        bank = [*cls, *bank][:BANK]
    with collect_measures() as found:
        GLM(DIM, 0, TEMPERATURE)(*draw(0, 1))
    assert not found


def _with_bank(tokens: list[torch.Tensor]) -> GLM:
    module = GLM(DIM, BANK, TEMPERATURE)
    module.bank = F.normalize(torch.stack(tokens), dim=1) if tokens else module.bank
    return module


def run_steps(batch: int) -> dict:
    """Three steps on this process's share of each batch."""
    module, losses, gradients = GLM(DIM, BANK, TEMPERATURE), [], []
    share = batch // comm.get_world_size()
    mine = slice(comm.get_rank() * share, (comm.get_rank() + 1) * share)
    for step in range(3):
        cls, features = draw(step, batch)
        features = features[mine].requires_grad_()
        loss = module(cls[mine], features)
        loss.backward()
        losses.append(loss.item())
        gradients.append(features.grad.flatten().tolist())
    return {"losses": losses, "bank": module.bank.tolist(), "gradients": gradients}


def report_steps(folder: str) -> None:
    (Path(folder) / f"{comm.get_rank()}.json").write_text(json.dumps(run_steps(batch=4)))


def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    launch(report_steps, 2, dist_url="auto", args=(str(tmp_path),))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    whole = run_steps(batch=4)
    assert ranks[0]["bank"] == ranks[1]["bank"] == whole["bank"]
    for step in range(3):
        mean = sum(rank["losses"][step] for rank in ranks) / 2
        assert mean == pytest.approx(whole["losses"][step], rel=1e-5)
        # DDP averages gradients over ranks, which halves those of a rank's own images.
        halves = torch.tensor([*ranks[0]["gradients"][step], *ranks[1]["gradients"][step]]) / 2
        torch.testing.assert_close(halves, torch.tensor(whole["gradients"][step]))
