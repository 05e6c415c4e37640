#!/usr/bin/env python
"""Memory and time of the losses on coarse logits, beside those on whole enlarged maps.

python benchmarks/losses.py --rounds 3

Memory is counted with tensors that hold no values, so any size will do: the most bytes that forward
and backward pass have allocated at a time, with the largest chunks that a GPU gets. Whole maps are
the reference of the tests, and torch's own cross-entropy. Times are those of the CPU.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench.timing import in_turn, ratios, spread
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zss_d2.modeling.losses import chunks
from zss_d2.modeling.losses.cross_entropy import cross_entropy_sum
from zss_d2.modeling.losses.nel import nel_terms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.modeling.losses import reference  # noqa: E402

# Images, classes, side of the coarse logits and of the targets, px.
LARGE = ((16, 156, 32, 512), (16, 15, 32, 512))
TIMED = ((4, 15, 32, 512), (16, 11, 12, 96))
IGNORED = 255
GPU_CHUNK = 128 << 20
Loss = Callable[[Tensor, Tensor], Tensor]


def focal_and_dice(terms: Callable[..., Any], logits: Tensor, targets: Tensor) -> Tensor:
    found = terms(logits, targets, targets != IGNORED, 0.25, 2.0)
    return 100 * found.focal + found.dice


def enlarged(logits: Tensor, targets: Tensor) -> Tensor:
    return F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "focal + dice": (
        lambda x, t: focal_and_dice(reference.nel_terms, enlarged(x, t), t),
        lambda x, t: focal_and_dice(nel_terms, x, t),
    ),
    "cross-entropy": (
        lambda x, t: F.cross_entropy(enlarged(x, t), t, ignore_index=IGNORED, reduction="sum"),
        lambda x, t: cross_entropy_sum(x, t, IGNORED),
    ),
}


class Allocations(TorchDispatchMode):
    """Counts the bytes of the storages that exist: now, and `peak` at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in self._seen:
                self._add(x.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def step(loss: Loss, shape: tuple[int, int, int, int]) -> Callable[[], None]:
    """Forward and backward pass on random logits."""
    images, classes, coarse, fine = shape
    logits = (4 * torch.randn(images, classes, coarse, coarse) - 3).requires_grad_()
    targets = torch.randint(0, classes, (images, fine, fine))

    def run() -> None:
        loss(logits, targets).backward()
        logits.grad = None

    return run


def peak(loss: Loss, shape: tuple[int, int, int, int]) -> int:
    """Bytes."""
    with FakeTensorMode(), patch.dict(chunks.CHUNK_BYTES, {"cpu": GPU_CHUNK}):
        run = step(loss, shape)
        with Allocations() as allocations:
            run()
    return allocations.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the times, each of both")
    args = parser.parse_args()
    for name, (whole, coarse) in LOSSES.items():
        for shape in LARGE:
            before, now = (peak(loss, shape) / 2**20 for loss in (whole, coarse))
            size = "{} x {} x {} -> {}".format(*shape)
            print(f"{name:14} {size:22} whole maps {before:6.0f} MiB, now {now:5.0f} MiB")
        for shape in TIMED:
            calls = {"whole": step(whole, shape), "now": step(coarse, shape)}
            in_turn(calls, 1)
            size = "{} x {} x {} -> {}".format(*shape)
            faster = spread(ratios(in_turn(calls, args.rounds), "whole", "now"))
            print(f"{name:14} {size:22} whole maps / now: {faster} times as long", flush=True)


if __name__ == "__main__":
    main()
