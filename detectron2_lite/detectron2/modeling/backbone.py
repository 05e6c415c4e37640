"""Feature extractors."""

from abc import ABC, abstractmethod

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import Tensor, nn

BACKBONE_REGISTRY = Registry("BACKBONE")  # name -> callable(cfg, input_shape) -> Backbone


class Backbone(nn.Module, ABC):
    """Base of networks that turn images into named feature maps."""

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> {feature name: (N, channels, H / stride, W / stride)}."""

    @property
    def size_divisibility(self) -> int:
        """Image sides must be multiples of this many pixels; 0: any."""
        return 0

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Shape per feature, from ``_out_features``, ``_out_feature_channels`` and ``_strides``."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {
            name: ShapeSpec(channels=channels[name], stride=strides[name])
            for name in self._out_features
        }


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """``MODEL.BACKBONE.NAME``; the input has one channel per ``PIXEL_MEAN`` unless told."""
    input_shape = input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, input_shape)
    assert isinstance(backbone, Backbone), f"{type(backbone).__name__} is no Backbone"
    return backbone
