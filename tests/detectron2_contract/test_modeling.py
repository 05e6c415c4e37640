"""Registries, models built by name, the Backbone base, and resizing of predictions."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode, configurable, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    Backbone,
    build_backbone,
    build_model,
)
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.utils.registry import Registry
from torch import nn


class ContractBackbone(Backbone):
    """One feature map of stride 2."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape.channels, 6, 2, stride=2)
        self._out_features = ["res"]
        self._out_feature_channels = {"res": 6}
        self._out_feature_strides = {"res": 2}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"res": self.conv(images)}


class ContractModel(nn.Module):
    """A backbone injected through ``from_config``."""

    @configurable
    def __init__(self, *, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, nn.Module]:
        return {"backbone": build_backbone(cfg)}


@pytest.fixture
def cfg(monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    """A config whose names are registered for one test."""
    parts = ((META_ARCH_REGISTRY, ContractModel), (BACKBONE_REGISTRY, ContractBackbone))
    for registry, part in parts:
        monkeypatch.setitem(registry._obj_map, part.__name__, part)
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ContractModel"
    cfg.MODEL.BACKBONE.NAME = "ContractBackbone"
    return cfg


def test_build_model_by_name(cfg: CfgNode) -> None:
    model = build_model(cfg)
    assert isinstance(model, ContractModel)
    assert model.backbone.conv.in_channels == 3


def test_build_model_moves_to_the_device(cfg: CfgNode) -> None:
    cfg.MODEL.DEVICE = "meta"
    assert {parameter.device.type for parameter in build_model(cfg).parameters()} == {"meta"}


def test_build_model_does_not_load_weights(cfg: CfgNode) -> None:
    cfg.MODEL.WEIGHTS = "absent.pth"
    assert isinstance(build_model(cfg), ContractModel)


def test_unknown_names_are_named(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "NoSuchModel"
    with pytest.raises(KeyError, match="NoSuchModel"):
        build_model(cfg)


def test_backbone_takes_a_given_input_shape(cfg: CfgNode) -> None:
    backbone = build_backbone(cfg, ShapeSpec(channels=4))
    assert backbone.conv.in_channels == 4
    assert backbone(torch.zeros(1, 4, 8, 6))["res"].shape == (1, 6, 4, 3)


def test_backbone_defaults(cfg: CfgNode) -> None:
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == 0
    assert backbone.output_shape() == {"res": ShapeSpec(channels=6, stride=2)}


def test_backbone_without_forward_cannot_be_made() -> None:
    class Unfinished(Backbone):
        """No forward."""

    with pytest.raises(TypeError):
        Unfinished()


def test_builder_must_return_a_backbone(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.MODEL.BACKBONE.NAME = "plain"
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "plain", lambda cfg, shape: nn.Identity())
    with pytest.raises(AssertionError):
        build_backbone(cfg)


def test_registry() -> None:
    registry = Registry("THINGS")

    @registry.register()
    def first() -> None:
        """Registered under its own name."""

    assert registry.get("first") is first
    assert "first" in registry
    assert dict(registry) == {"first": first}
    with pytest.raises(AssertionError):
        registry.register(first)
    with pytest.raises(KeyError, match="THINGS"):
        registry.get("second")


def test_postprocess_crops_padding_then_resizes() -> None:
    scores = torch.full((2, 4, 6), 9.0)
    scores[:, :2, :3] = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    same = sem_seg_postprocess(scores, (2, 3), 2, 3)
    assert same[1].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    # Bilinear without aligned corners: doubling puts samples at quarters between pixel centres.
    doubled = sem_seg_postprocess(scores, (2, 3), 2, 6)
    assert doubled.shape == (2, 2, 6)
    assert doubled[0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.25, 1.75, 2.0])
