"""Inputs of the network in batches: those of one size together, results in the order they came in.

What is read ahead are inputs, and what is held of them are the network's own coarse logits, which
are few; score maps at the size of an input are made of one after the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

# Batches that inputs are read ahead for, so that those of several sizes fill batches as well.
_AHEAD = 4


class Logits(Protocol):
    """What of a model makes logits; see `zss_d2.modeling.inference.pipeline.Network`."""

    def logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K, h, w)."""

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width that images of ``size`` (H, W) have once padded."""


def together(kinds: Sequence[Hashable], most: int) -> list[list[int]]:
    """Positions of equal kinds in groups of at most ``most``, by their first members."""
    groups: list[list[int]] = []
    filling: dict[Hashable, list[int]] = {}
    for position, kind in enumerate(kinds):
        group = filling.get(kind)
        if group is None or len(group) == most:
            group = filling[kind] = []
            groups.append(group)
        group.append(position)
    return groups


def coarse_logits(
    network: Logits, inputs: Iterable[Tensor], class_names: Sequence[str], flip: bool, batch: int
) -> Iterator[tuple[Tensor, ...]]:
    """Logits (1, K, h, w) of inputs (3, H, W), in their order.

    Inputs of one size once padded go through the network together, also of several images. They
    are read, and computed, as they are needed.

    Args:
        inputs: images or windows of any sizes, normalised.
        flip: also the logits of the mirrored input, as a second one.
        batch: inputs that go through the network at once, mirrored ones counted.
    """
    most = max(1, batch // 2 if flip else batch)
    inputs = iter(inputs)
    while ahead := list(islice(inputs, most * _AHEAD if most > 1 else 1)):
        sizes = [network.padded_size(x.shape[-2:]) for x in ahead]
        groups = {group[0]: group for group in together(sizes, most)}
        ready: dict[int, tuple[Tensor, ...]] = {}
        for position, size in enumerate(sizes):
            if group := groups.get(position):
                members = [ahead[i] for i in group]
                passes = _passes(network, members, size, class_names, flip, batch)
                ready |= zip(group, zip(*passes, strict=True), strict=True)
            yield ready.pop(position)


def _passes(
    network: Logits,
    inputs: Sequence[Tensor],
    padded: tuple[int, int],
    class_names: Sequence[str],
    flip: bool,
    batch: int,
) -> list[Sequence[Tensor]]:
    """Logits (1, K, h, w) of every input, and with ``flip`` of every mirrored one."""
    sides = [inputs, [x.flip(-1) for x in inputs]] if flip else [inputs]
    if len(sides) * len(inputs) > batch:
        return [network.logits(_stack(side, padded), class_names).split(1) for side in sides]
    logits = network.logits(_stack([x for side in sides for x in side], padded), class_names)
    return [part.split(1) for part in logits.chunk(len(sides))]


def _stack(inputs: Sequence[Tensor], padded: tuple[int, int]) -> Tensor:
    """Inputs (3, H, W) of one size once padded -> (B, 3, H, W)."""
    if len(inputs) == 1:
        return inputs[0][None]
    if len({x.shape for x in inputs}) > 1:  # at the right and bottom, as the network would
        height, width = padded
        inputs = [F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in inputs]
    return torch.stack(list(inputs))
