"""Registries of models and their parts, and building them from the config."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY as BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone as Backbone
from detectron2.modeling.backbone import build_backbone as build_backbone
from detectron2.utils.registry import Registry
from torch import nn

META_ARCH_REGISTRY = Registry("META_ARCH")  # name -> callable(cfg) -> module
SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")  # name -> callable(cfg, input_shape) -> module


def build_model(cfg: CfgNode) -> nn.Module:
    """The model named by ``MODEL.META_ARCHITECTURE``, on ``MODEL.DEVICE``; loads no weights."""
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head named by ``MODEL.SEM_SEG_HEAD.NAME`` for features of these shapes."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)
