"""Upper bounds that look at hidden labels: what they do, and that nothing else looks."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.clip_zss.test_clip_to_seg import C2S
from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.method_tester import batch
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.evaluation.results import describe_protocol, protocol_of
from zss_d2.modeling.methods.clip_zss.plm.oracle import (
    ORACLE_LABELS,
    hidden_code,
    named_by_truth,
    split_hidden,
)
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED, fuse_labels

K, U = 3, 4
KEY = "ZERO_SHOT.LEAKY_ORACLE"


def test_hidden_codes_come_back():
    targets = torch.tensor([[2, UNLABELLED, hidden_code(0), hidden_code(3)]])
    visible, hidden = split_hidden(targets)
    assert visible.tolist() == [[2, -1, -1, -1]]
    assert hidden.tolist() == [[-1, -1, 0, 3]]


def slow_names(labels, hidden):
    """One image: {pseudo id: the unseen class of most of its pixels}."""
    names = {}
    for region in set(labels[labels >= K].tolist()):
        truth = hidden[(labels == region) & (hidden >= 0)].tolist()
        if truth:
            names[region] = min(set(truth), key=lambda u: (-truth.count(u), u))
    return names


def test_regions_are_named_by_the_class_of_most_of_their_pixels():
    targets = torch.randint(-1, K, (4, 8, 8))
    targets[3] = 1
    hidden = torch.randint(-1, U, (4, 8, 8)).where(targets < 0, UNLABELLED)
    hidden[2] = UNLABELLED  # clutter alone
    inside = torch.ones_like(targets, dtype=torch.bool)
    fused = fuse_labels(targets, torch.randint(0, 5, (4, 4, 4)), inside, K, (8, 8))
    got = named_by_truth(fused, hidden, K, U)
    assert got.num_pseudo == U
    for image in range(4):
        names = slow_names(fused.labels[image], hidden[image])
        expected = fused.labels[image].clone()
        for region in expected[expected >= K].unique().tolist():
            new = K + names[region] if region in names else UNLABELLED
            expected[fused.labels[image] == region] = new
        assert torch.equal(got.labels[image], expected)
        assert torch.equal(got.coarse[image], expected)
    assert torch.equal(got.at(targets, inside, (8, 8)), got.labels)


def leaky_batch(model) -> list[dict]:
    """Seen labels, and one unseen class in a corner that they leave out."""
    items = batch((64, 64), (64, 80))
    unseen = [i for i, name in enumerate(model.classes) if name not in model.labelled_classes]
    for number, item in enumerate(items):
        item["sem_seg"][:32, :32] = 255
        truth = item["sem_seg"].clone()
        truth[:32, :32] = unseen[number]
        item[ORACLE_LABELS] = truth
    return items


@pytest.mark.parametrize("base", [TINY, C2S], ids=["CLIP-ZSS", "C2S"])
@pytest.mark.parametrize("oracle", [("regions",), ("embeddings",), ("regions", "embeddings")])
def test_an_oracle_trains_and_looks_at_the_truth(make_cfg, base, oracle):
    torch.manual_seed(0)
    model = build_model(make_cfg(*base, KEY, oracle)).train()
    items = leaky_batch(model)
    model.learner.global_learning.bank_size = 0
    losses = model(items)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    other = copy.deepcopy(items)
    for item in other:
        item[ORACLE_LABELS][:16, :16] = 255
    changed = model(other)
    assert changed["loss_ce"] != losses["loss_ce"]


def test_oracle_regions_are_the_masks_of_unseen_classes(make_cfg):
    model = build_model(make_cfg(*TINY, KEY, ("regions",))).train()
    found = []
    original = model.learner._label
    model.learner._label = lambda *a: found.append(original(*a)) or found[-1]
    items = leaky_batch(model)
    model(items)
    for image, item in enumerate(items):
        labels = found[0].labels[image, : item["sem_seg"].shape[0], : item["sem_seg"].shape[1]]
        assert (labels[:32, :32] == len(model.train_classes)).all()
        outside = labels.clone()
        outside[:32, :32] = 0
        assert (outside < len(model.train_classes)).all()


def test_oracle_embeddings_are_those_of_the_true_class(make_cfg):
    model = build_model(make_cfg(*TINY, KEY, ("embeddings",))).train()
    assert model.learner.pixel_learning.synthesizer is None
    seen = {}
    learning = model.learner.pixel_learning

    def look(module, args, kwargs):
        seen["text"], seen["fused"] = kwargs["unseen_text"], args[4]

    learning.register_forward_pre_hook(look, with_kwargs=True)
    model(leaky_batch(model))
    assert torch.equal(seen["text"], model.classifier(model.hidden_classes))
    named = seen["fused"].labels - len(model.train_classes)
    for image in range(2):
        # Regions may reach over the corner; all that they are named is the class in it.
        assert named[image][named[image] >= 0].unique().tolist() == [image]


def test_without_the_key_nothing_looks_at_the_truth(make_cfg):
    model = build_model(make_cfg(*C2S)).train()
    items = leaky_batch(model)
    model.learner.global_learning.bank_size = 0
    with_truth = model(items)
    for item in items:
        item[ORACLE_LABELS][:] = 9
    assert model(items) == with_truth


def test_an_upper_bound_is_named_as_one_everywhere(make_cfg, tmp_path, caplog):
    leaky = make_cfg(*TINY, KEY, ("regions",))
    assert protocol_of(leaky)["leaky_oracle"] == ["regions"]
    assert "LEAKY ORACLE regions" in describe_protocol(protocol_of(leaky))
    assert "leaky_oracle" not in protocol_of(make_cfg(*TINY))
    with caplog.at_level(logging.WARNING):
        model = build_model(leaky)
    assert "its scores are upper bounds, not results" in caplog.text
    ZeroShotCheckpointer(model, str(tmp_path)).save("leaky")
    caplog.clear()
    ZeroShotCheckpointer(build_model(make_cfg(*TINY))).load(str(tmp_path / "leaky.pth"))
    assert "LEAKY_ORACLE ['regions']): its scores are upper bounds" in caplog.text
