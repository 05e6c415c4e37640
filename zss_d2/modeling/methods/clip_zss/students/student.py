"""The student: any backbone and a light decoder, images -> dense features in CLIP's space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students.norm import NORMS, build_norm


class LightDecoder(nn.Module):
    """All maps to equal channels and to the finest size, one convolution over their stack.

    The paper does not say how features are brought to CLIP's joint dimension.
    """

    def __init__(self, input_shape: Mapping[str, ShapeSpec], channels: int, dim: int, norm: str):
        """
        Args:
            input_shape: maps of the backbone.
            channels: of every map inside.
            dim: C of the result.
            norm: see `build_norm`.
        """
        super().__init__()
        # The finest first, whatever order the backbone has.
        self.names = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.lateral = nn.ModuleList(
            nn.Conv2d(input_shape[name].channels, channels, 1) for name in self.names
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(len(self.names) * channels, channels, 1, bias=False),
            build_norm(norm, channels),
            nn.GELU(),
            nn.Conv2d(channels, dim, 1),
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """{name: (B, C_i, h_i, w_i)} -> (B, dim, h, w) at the finest size."""
        size = features[self.names[0]].shape[2:]
        maps = [
            F.interpolate(lateral(features[name]), size, mode="bilinear", align_corners=False)
            for name, lateral in zip(self.names, self.lateral, strict=True)
        ]
        return self.fuse(torch.cat(maps, dim=1))


class StudentEncoder(nn.Module):
    """A backbone and its decoder."""

    def __init__(self, backbone: Backbone, decoder: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        # Convolutions, depth-wise ones above all, are faster with the channels of a pixel together.
        self.to(memory_format=torch.channels_last)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it, px."""
        strides = [shape.stride for shape in self.backbone.output_shape().values()]
        return max(self.backbone.size_divisibility, *strides)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> dense features (B, C, h, w)."""
        return self.decoder(self.backbone(images))


def build_student(cfg: CfgNode, dim: int) -> StudentEncoder:
    """``cfg.MODEL.BACKBONE.NAME`` and ``cfg.MODEL.CLIP_ZSS.ENCODER`` with ``dim`` channels out.

    Raises:
        ZssError: an unknown norm or backbone, or a key that the backbone does not read.
    """
    encoder = cfg.MODEL.CLIP_ZSS.ENCODER
    if encoder.NORM not in NORMS:
        raise ZssError(
            f"MODEL.CLIP_ZSS.ENCODER.NORM is {encoder.NORM!r}; use one of {', '.join(NORMS)}"
        )
    if cfg.MODEL.BACKBONE.NAME not in BACKBONE_REGISTRY:
        raise ZssError(
            f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}, which is not registered; use "
            "build_mscan_backbone, build_timm_backbone, build_smp_backbone or one of Detectron2's"
        )
    _check_keys_are_read(cfg)
    # Not from PIXEL_MEAN, which may be empty here.
    backbone = build_backbone(cfg, ShapeSpec(channels=3))
    decoder = LightDecoder(backbone.output_shape(), encoder.CHANNELS, dim, encoder.NORM)
    return StudentEncoder(backbone, decoder)


def _check_keys_are_read(cfg: CfgNode) -> None:
    """Backbones of Detectron2 have keys of their own and do not know ours."""
    name, encoder = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.CLIP_ZSS.ENCODER
    if not BACKBONE_REGISTRY.get(name).__module__.startswith("detectron2."):
        return
    for key in ("PRETRAINED", "WEIGHTS", "OUT_FEATURES"):
        if encoder[key]:
            raise ZssError(
                f"MODEL.CLIP_ZSS.ENCODER.{key} is {encoder[key]!r}, which {name} does not read; "
                "leave it at its default and use Detectron2's keys"
            )
