"""The student: any backbone and a light decoder, images -> dense features in CLIP's space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.students import folding
from zss_d2.modeling.methods.clip_zss.students.convolutions import PointwiseConv2d, pointwise
from zss_d2.modeling.methods.clip_zss.students.norm import NORMS, build_norm, synchronised
from zss_d2.utils.weights import is_traced, stamp_of


def _plain_format(device: torch.device) -> torch.memory_format:
    """How maps of other backbones lie: on a CPU channels of a pixel side by side, which is faster.

    On CUDA torch has kernels of its own for depth-wise convolutions, but channel by channel.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


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
            PointwiseConv2d(input_shape[name].channels, channels) for name in self.names
        )
        self.fuse = nn.Sequential(
            PointwiseConv2d(len(self.names) * channels, channels, bias=False),
            build_norm(norm, channels),
            nn.GELU(),
            PointwiseConv2d(channels, dim),
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """{name: (B, C_i, h_i, w_i)} -> (B, dim, h, w) at the finest size.

        A 1 x 1 convolution and bilinear enlargement may change places: each map has its share of
        the one over their stack at its own size, and what is enlarged is added up.
        """
        join, *others = self.fuse
        shares = join.weight.split(join.out_channels, dim=1)
        maps = [
            pointwise(lateral(features[name]), share)
            for name, lateral, share in zip(self.names, self.lateral, shares, strict=True)
        ]
        total = add_enlarged(maps)
        for layer in others:
            total = layer(total)
        return total

    def folded_for_testing(self) -> nn.Module:
        """With a batch norm, a `FoldedDecoder` of its weights; see `folding.folded`."""
        return FoldedDecoder(self) if folding.is_batch_norm(self.fuse[1]) else self


class FoldedDecoder(nn.Module):
    """A `LightDecoder` of testing: all linear steps of a map are one convolution."""

    def __init__(self, decoder: LightDecoder):
        """Takes the parts of ``decoder`` and changes them."""
        super().__init__()
        self.names, self.maps = decoder.names, decoder.lateral
        join, norm, self.activation, self.last = decoder.fuse
        factor, shift = folding.factor_and_shift(norm)
        shares = join.weight[:, :, 0, 0].split(join.out_channels, dim=1)
        for conv, share in zip(self.maps, shares, strict=True):
            share = factor[:, None] * share
            conv.weight.copy_((share @ conv.weight[:, :, 0, 0])[..., None, None])
            conv.bias.copy_(share @ conv.bias)
        self.maps[0].bias += shift

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """As of `LightDecoder`."""
        maps = [conv(features[name]) for name, conv in zip(self.names, self.maps, strict=True)]
        return self.last(self.activation(add_enlarged(maps)))


def add_enlarged(maps: Sequence[Tensor]) -> Tensor:
    """Sum of maps (B, C, h_i, w_i), all of them enlarged bilinearly to the size of the first."""
    total, *coarse = maps
    for x in coarse:
        total = total + F.interpolate(x, total.shape[2:], mode="bilinear", align_corners=False)
    return total


class StudentEncoder(nn.Module):
    """A backbone and its decoder, in the memory format of the device.

    In evaluation mode and without gradients a folded copy computes: batch norms are then parts of
    convolutions. It is made anew when a weight has changed, and is no part of the state.
    """

    def __init__(self, backbone: Backbone, decoder: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self._copy = _FoldedCopy()
        self.register_load_state_dict_post_hook(_drop_copy)
        self._arrange()

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it, px."""
        strides = [shape.stride for shape in self.backbone.output_shape().values()]
        return max(self.backbone.size_divisibility, *strides)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> dense features (B, C, h, w)."""
        if self.training or torch.is_grad_enabled() or is_traced():
            return self.decoder(self.backbone(images))
        backbone, decoder = self._copy.of(self.backbone, self.decoder)
        return decoder(backbone(images))

    def train(self, mode: bool = True) -> StudentEncoder:
        """As of any module; the folded copy is dropped before weights change."""
        if mode:
            self._copy.drop()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StudentEncoder:
        super()._apply(fn, recurse)
        self._copy.drop()
        self._arrange()
        return self

    def _arrange(self) -> None:
        choose = getattr(self.backbone, "memory_format", _plain_format)
        for weight in self.parameters():
            if weight.dim() == 4:
                layout = choose(weight.device)
                weight.data = weight.data.contiguous(memory_format=layout)


class _FoldedCopy:
    """Folded copies of two modules for as long as their weights stay, in the precision of autocast.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.drop()

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()

    def drop(self) -> None:
        """Forget the copies."""
        self._parts: nn.ModuleList | None = None
        self._weights: list[Tensor] = []
        self._key: object = None

    def of(self, *modules: nn.Module) -> nn.ModuleList:
        """The folded copies of modules in evaluation mode, the same ones until `drop`."""
        self._weights = self._weights or [
            x for module in modules for x in (*module.parameters(), *module.buffers())
        ]
        device = self._weights[0].device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        states = [stamp_of(weight) for weight in self._weights]
        parts = self._parts
        if parts is None or self._key != (half, states):
            # Tensors that are made in inference mode can only be used there.
            with torch.inference_mode(False), torch.autocast(device, enabled=False):
                parts = nn.ModuleList(map(folding.folded, modules))
                for part in parts.modules():
                    if half and isinstance(part, nn.Conv2d):
                        part.to(half)  # what autocast does on every call
            self._parts, self._key = parts, (half, states)
        return parts


def _drop_copy(module: StudentEncoder, _: Any) -> None:
    module._copy.drop()


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
    student = StudentEncoder(backbone, decoder)
    if not cfg.MODEL.CLIP_ZSS.TEACHER:  # for tests only
        return student
    return synchronised(student, cfg.MODEL.CLIP_ZSS.SYNC_BN, cfg.MODEL.DEVICE)


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
