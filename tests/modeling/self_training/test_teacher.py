"""Teachers: whose weights they have, when, and that the student does not notice."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.all_methods import METHODS, TRAINED
from tests.modeling.method_tester import batch
from zss_d2.modeling.self_training.teacher import TeacherWeights, logits_of_views

TRANSDUCTIVE = ("ZERO_SHOT.SETTING", "transductive")
KEY = "ZERO_SHOT.SELF_TRAINING."


def changed(model: torch.nn.Module) -> None:
    """Other weights and statistics, as a step would leave them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if "running_" in name:
                buffer += 0.5


@pytest.fixture(params=TRAINED)
def model(request, make_cfg):
    return build_model(make_cfg(*METHODS[request.param], *TRANSDUCTIVE)).train()


def test_a_teacher_scores_as_the_model_that_it_was_copied_from(model):
    images, names = torch.randn(2, 3, 64, 64), model.train_classes
    with torch.no_grad():
        before = model.eval().class_logits(images, names)
        mirrored = model.class_logits(images.flip(-1), names).flip(-1)
    teacher = TeacherWeights()
    teacher.copy(model)
    changed(model.train())
    views = [(1.0, False), (1.0, True), (0.5, False)]
    logits = logits_of_views(model, teacher, images, names, views)
    assert model.training
    torch.testing.assert_close(logits[0], before)
    torch.testing.assert_close(logits[1], mirrored)
    assert logits[2].shape[:2] == before.shape[:2]
    own, *_ = logits_of_views(model, None, images, names, views[:1])
    assert not torch.allclose(own, before)
    with torch.no_grad():
        torch.testing.assert_close(own, model.eval().class_logits(images, names))


def test_the_average_follows_step_by_step(model):
    teacher = TeacherWeights()
    teacher.copy(model)
    expected = copy.deepcopy(teacher.state())
    for _ in range(3):
        changed(model)
        teacher.follow(model, 0.75)
        now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, weight in expected.items():
            share = 0.0 if "running_" in name else 0.75
            expected[name] = share * weight + (1 - share) * now[name].detach()
    for name, weight in teacher.state().items():
        torch.testing.assert_close(weight, expected[name], msg=name)
    other = TeacherWeights()
    other.load(teacher.state(), torch.device("cpu"))
    assert all(torch.equal(x, other.state()[name]) for name, x in teacher.state().items())


@pytest.mark.parametrize(
    ("opts", "copied_at"),
    [
        ((KEY + "SOURCE", "frozen"), [2]),
        ((KEY + "SOURCE", "frozen", KEY + "ROUNDS", 3), [2, 5, 8]),
        ((KEY + "SOURCE", "ema"), [2]),
    ],
)
def test_when_a_teacher_is_copied(make_cfg, monkeypatch, opts, copied_at):
    model = build_model(make_cfg(*TRANSDUCTIVE, KEY + "START", 2, *opts))
    copies, follows, copy_weights = [], [], TeacherWeights.copy
    part = model.self_training
    monkeypatch.setattr(
        TeacherWeights,
        "copy",
        lambda self, student: (copies.append(part.iteration), copy_weights(self, student)),
    )
    monkeypatch.setattr(TeacherWeights, "follow", lambda *_: follows.append(part.iteration))
    for iteration in range(9):
        part.begin(model, iteration)
    assert copies == copied_at
    assert follows == ([3, 4, 5, 6, 7, 8] if "ema" in opts else [])


def test_weights_of_a_teacher_are_no_weights_of_the_model(make_cfg):
    plain = build_model(make_cfg()).state_dict().keys()
    model = build_model(make_cfg(*TRANSDUCTIVE, KEY + "SOURCE", "ema")).train()
    model(batch((64, 64)))
    assert model.self_training.memory()["teacher"]
    assert model.state_dict().keys() == plain
    assert not list(model.self_training.parameters())


def test_a_share_of_the_losses(make_cfg):
    """w L(labels and pseudo labels) + (1 - w) L(labels)."""
    items, losses = batch((64, 64), (48, 80)), {}
    for weight in (1.0, 0.25):
        torch.manual_seed(0)
        model = build_model(make_cfg(*TRANSDUCTIVE, KEY + "WEIGHT", weight)).train()
        losses[weight] = model(items)
    targets = model._targets(items)
    outputs = model.training_outputs(model._pad([model.normalise(item["image"]) for item in items]))
    without = model.losses(outputs, targets)
    for name, loss in losses[0.25].items():
        torch.testing.assert_close(loss, 0.25 * losses[1.0][name] + 0.75 * without[name])
