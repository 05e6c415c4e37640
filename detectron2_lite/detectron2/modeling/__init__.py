"""Registries of models and backbones, and building them from the config."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling.backbone import BACKBONE_REGISTRY as BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone as Backbone
from detectron2.modeling.backbone import build_backbone as build_backbone
from detectron2.utils.registry import Registry
from torch import nn

META_ARCH_REGISTRY = Registry("META_ARCH")  # name -> callable(cfg) -> module


def build_model(cfg: CfgNode) -> nn.Module:
    """The model named by ``MODEL.META_ARCHITECTURE``, on ``MODEL.DEVICE``; loads no weights."""
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))
