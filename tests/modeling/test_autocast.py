"""Precision has one place: networks in it, whoever turned it on; losses and scores in single."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.method_tester import batch
from tests.modeling.test_segmentor import ChannelModel
from tests.modeling.test_segmentor import model as channel_model
from zss_d2.clip import ImageFeatures
from zss_d2.modeling.methods.clip_zss.plm.fusion import multi_scale_regions

BF16 = torch.bfloat16
METHODS = {
    "LDVC": (),
    "LDVC with language prompts": ("MODEL.TEXT_PROMPTS.LENGTH", 2),
    "ZegCLIP": ("MODEL.META_ARCHITECTURE", "ZegCLIP"),
    "CLIPZSS": TINY,
}
# What is network, and what is loss, in every method.
TWO_TOWERS = ("image_encoder.visual.transformer.resblocks.0.mlp.c_fc", "descriptor.linear")
NETWORKS = {
    "LDVC": TWO_TOWERS,
    "LDVC with language prompts": (
        *TWO_TOWERS,
        "text_encoder.transformer.resblocks.0.mlp.c_fc",
    ),
    "ZegCLIP": TWO_TOWERS,
    "CLIPZSS": ("student.decoder",),
}
LOSSES = {
    "LDVC": ("criterion",),
    "LDVC with language prompts": ("criterion",),
    "ZegCLIP": ("criterion",),
    "CLIPZSS": (
        "learner.pixel_losses",
        "learner.pixel_learning",
        "learner.pixel_learning.synthesizer",
        "learner.global_learning",
    ),
}


def half_precision(make_cfg, method: str, by: str) -> nn.Module:
    """A model that runs in bfloat16 by its own key or by an autocast around it, as AMP's is."""
    own = ("MODEL.AUTOCAST", "bfloat16") if by == "AUTOCAST" else ()
    model = build_model(make_cfg(*METHODS[method], *own))
    if by == "AMP":
        forward = model.forward

        def inside(items):
            with torch.autocast("cpu", BF16):
                return forward(items)

        model.forward = inside
    return model


def dtypes_of(value) -> set[torch.dtype]:
    if isinstance(value, torch.Tensor):
        return {value.dtype} if value.is_floating_point() else set()
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, (tuple, list, type({}.values()))):
        return set().union(*map(dtypes_of, value))
    return set()


@pytest.mark.parametrize("by", ["AUTOCAST", "AMP"])
@pytest.mark.parametrize("method", METHODS)
def test_networks_are_in_half_and_losses_in_single_precision(make_cfg, method, by):
    model = half_precision(make_cfg, method, by).train()
    seen = {}

    def spy(name):
        def look(_, inputs, outputs):
            enabled = torch.is_autocast_enabled("cpu")
            seen[name] = dtypes_of(inputs), dtypes_of(outputs), enabled

        return look

    for name in NETWORKS[method] + LOSSES[method]:
        model.get_submodule(name).register_forward_hook(spy(name))
    losses = model(batch((64, 64), (64, 80)))
    assert dtypes_of(losses) == {torch.float32}
    for name in NETWORKS[method]:
        assert seen[name][1:] == ({BF16}, True), name
    for name in LOSSES[method]:
        inputs, outputs, enabled = seen[name]
        assert inputs | outputs == {torch.float32}, name
        assert not enabled, f"a matrix product in {name} would be in half precision"


@pytest.mark.parametrize("by", ["AUTOCAST", "AMP"])
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_in_single_precision(make_cfg, method, by):
    model = half_precision(make_cfg, method, by).eval()
    (result,) = model(batch((64, 64)))
    assert result["sem_seg"].dtype == torch.float32
    # Scores rounded to bfloat16 would have no more than these bits.
    scores = result["sem_seg"]
    assert not torch.equal(scores, scores.to(BF16).float())


def test_half_precision_outputs_reach_the_losses_as_floats():
    """Sums of them would overflow: 65504 is the largest number of float16."""

    class Half(ChannelModel):
        def training_outputs(self, images):
            return {"features": (images.half().abs() * 0 + 6e4, [images.to(BF16)])}

        def losses(self, outputs, targets):
            features, (others,) = outputs["features"]
            assert features.dtype == others.dtype == torch.float32
            return {"loss": features.sum()}

    item = {"image": torch.zeros(3, 8, 8), "sem_seg": torch.full((8, 8), 1)}
    (loss,) = channel_model(Half).train()([item]).values()
    assert loss.item() == pytest.approx(6e4 * 3 * 64, rel=1e-3)


@pytest.mark.parametrize("by", ["AUTOCAST", "AMP"])
def test_pseudo_regions_do_not_depend_on_the_precision(make_cfg, by):
    """The same tokens of the teacher give the same partition and so the same labels F."""

    def labels_of(model):
        tokens = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
        # Many tokens lie between two centroids.
        tokens = tokens / 4 + 1
        model.learner.teacher.forward = lambda images: ImageFeatures(tokens[:, :, 0, 0], tokens)
        found = []
        learner = model.learner
        original = learner._label
        learner._label = lambda *a: found.append(original(*a)) or found[-1]
        model.train()(batch((64, 64), (64, 64)))
        return found[0].labels

    exact = labels_of(build_model(make_cfg(*TINY)))
    assert len(exact.unique()) > 4
    assert torch.equal(labels_of(half_precision(make_cfg, "CLIPZSS", by)), exact)


def test_partitions_are_the_same_inside_an_autocast():
    tokens = torch.randn(3, 16, 12, 12, generator=torch.Generator().manual_seed(1)) + 1
    exact = multi_scale_regions(tokens, (3, 6), 5, 0.9)
    with torch.autocast("cpu", BF16):
        inside = multi_scale_regions(tokens, (3, 6), 5, 0.9)
    assert torch.equal(inside.labels, exact.labels)
    assert torch.equal(inside.centroids, exact.centroids)
