"""MSCAN, the encoder of SegNeXt (arXiv 2209.08575): convolutions in the place of self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.modeling import Backbone
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from zss_d2.modeling.methods.clip_zss.students import convolutions, folding
from zss_d2.modeling.methods.clip_zss.students.convolutions import (
    DepthwiseConv2d,
    PointwiseConv2d,
)
from zss_d2.modeling.methods.clip_zss.students.norm import build_norm

STAGES = ("stage1", "stage2", "stage3", "stage4")
STRIP_KERNELS = (7, 11, 21)
MLP_RATIOS = (8, 8, 4, 4)


class Size(NamedTuple):
    """Channels and blocks per stage, and the stochastic depth of the last block."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    drop_path: float


# As in the authors' configs (github.com/Visual-Attention-Network/SegNeXt), except "mini", which is
# ours for the mini world.
SIZES = {
    "mini": Size((16, 32, 64, 96), (1, 1, 2, 1), 0.0),
    "T": Size((32, 64, 160, 256), (3, 3, 5, 2), 0.1),
    "S": Size((64, 128, 320, 512), (2, 2, 4, 2), 0.1),
    "B": Size((64, 128, 320, 512), (3, 3, 12, 3), 0.1),
    "L": Size((64, 128, 320, 512), (3, 5, 27, 3), 0.3),
}


class MultiScaleAttention(nn.Module):
    """Weights for every pixel and channel out of several neighbourhoods (equations 1 and 2).

    A = Conv1x1(sum_i Scale_i(DW5x5(F))), output A * F. Scale_0 is the identity, the others a pair
    of strips, k x 1 and 1 x k.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.local = DepthwiseConv2d(dim, (5, 5))
        self.strips = nn.ModuleList(
            nn.ModuleList([DepthwiseConv2d(dim, (1, k)), DepthwiseConv2d(dim, (k, 1))])
            for k in STRIP_KERNELS
        )
        self.mix = PointwiseConv2d(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        total = local = self.local(x)
        for across, down in self.strips:
            total = down(across(local), plus=total)
        return x * self.mix(total)


class Block(nn.Module):
    """Attention and MLP, each behind a norm, with layer scale and stochastic depth."""

    def __init__(self, dim: int, mlp_ratio: int, drop_path: float, norm: str):
        super().__init__()
        hidden = dim * mlp_ratio
        self.attention = nn.Sequential(
            PointwiseConv2d(dim, dim),
            nn.GELU(),
            MultiScaleAttention(dim),
            PointwiseConv2d(dim, dim),
        )
        self.mlp = nn.Sequential(
            PointwiseConv2d(dim, hidden),
            DepthwiseConv2d(hidden, (3, 3)),
            nn.GELU(),
            PointwiseConv2d(hidden, dim),
        )
        self.norms = nn.ModuleList(build_norm(norm, dim) for _ in range(2))
        self.scales = nn.Parameter(torch.full((2, dim, 1, 1), 1e-2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        normed = self.norms[0](x)
        x = x + self.drop_path(self.scales[0] * (normed + self.attention(normed)))
        return x + self.drop_path(self.scales[1] * self.mlp(self.norms[1](x)))

    def folded_for_testing(self) -> nn.Module:
        """With batch norms, a `FoldedBlock` made of this block's parts; see `folding.folded`."""
        return FoldedBlock(self) if all(map(folding.is_batch_norm, self.norms)) else self


class FoldedBlock(nn.Module):
    """A `Block` of testing: norms and scales are in its convolutions.

    With a norm f x + t before, and the scale s, x + s (norm(x) + attention(norm(x))) is
    (1 + s f) x + (s attention(f x + t) + s t): all but the first factor goes into the first and the
    last convolution of the attention, which are 1 x 1.
    """

    def __init__(self, block: Block):
        """Takes the parts of ``block`` and changes them."""
        super().__init__()
        self.attention, self.mlp = block.attention, block.mlp
        parts = zip((self.attention, self.mlp), block.norms, block.scales.flatten(1), strict=True)
        for part, norm, scale in parts:
            factor, shift = folding.factor_and_shift(norm)
            folding.before(part[0], factor, shift)
            skipped = part is self.attention
            folding.behind(part[-1], scale, scale * shift if skipped else 0.0)
            if skipped:
                self.register_buffer("factor", (1 + scale * factor)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = torch.addcmul(self.attention(x), self.factor, x)
        return x + self.mlp(x)


class MSCAN(Backbone):
    """Four stages at strides 4, 8, 16, 32."""

    memory_format = staticmethod(convolutions.memory_format)

    def __init__(self, size: Size, out_features: Sequence[str] = STAGES, norm: str = "BN"):
        super().__init__()
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(STAGES, size.dims, strict=True))
        self._out_feature_strides = dict(zip(STAGES, (4, 8, 16, 32), strict=True))
        rates = iter(np.linspace(0, size.drop_path, sum(size.depths)).tolist())
        before = 3
        for name, dim, depth, ratio in zip(STAGES, size.dims, size.depths, MLP_RATIOS, strict=True):
            blocks = [Block(dim, ratio, next(rates), norm) for _ in range(depth)]
            # SegNeXt's own norms are LayerNorms with torch's epsilon.
            norm_of_stage = LayerNorm2d(dim, eps=1e-5)
            stage = nn.Sequential(_downsample(before, dim, norm), *blocks, norm_of_stage)
            self.add_module(name, stage)
            before = dim

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {stage: (B, C, H / stride, W / stride)}."""
        features, x = {}, images
        for name in STAGES:
            x = features[name] = getattr(self, name)(x)
        return {name: features[name] for name in self._out_features}


def _downsample(before: int, dim: int, norm: str) -> nn.Module:
    """Stride 4 from the image, in two steps, else stride 2."""
    if before != 3:
        return nn.Sequential(nn.Conv2d(before, dim, 3, 2, 1), build_norm(norm, dim))
    return nn.Sequential(
        nn.Conv2d(before, dim // 2, 3, 2, 1),
        build_norm(norm, dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, 2, 1),
        build_norm(norm, dim),
    )
