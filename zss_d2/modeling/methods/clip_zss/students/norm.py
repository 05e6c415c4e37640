"""Normalisation of feature maps (B, C, H, W)."""

from __future__ import annotations

import math

from torch import nn

NORMS = ("BN", "SyncBN", "GN")


def build_norm(name: str, channels: int) -> nn.Module:
    """One of `NORMS`; GN has 32 groups, or as many as divide the channels.

    GN does not look at other images, so it also suits small batches and several processes.

    Raises:
        ValueError: another name.
    """
    if name == "BN":
        return nn.BatchNorm2d(channels)
    if name == "SyncBN":
        return nn.SyncBatchNorm(channels)
    if name == "GN":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    raise ValueError(f"norm is {name!r}; use one of {', '.join(NORMS)}")
