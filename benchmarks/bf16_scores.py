#!/usr/bin/env python
"""Scores of trainings in bfloat16 beside those in float32, seed by seed.

python benchmarks/bf16_scores.py --seeds 1 2 3                       # short trainings of ldvc_mini
python benchmarks/bf16_scores.py --seeds 1 2 3 --opts SOLVER.MAX_ITER 400 SOLVER.IMS_PER_BATCH 16

A CPU without units for bfloat16 takes five times as long in it. There it is emulated: products of
matrices, convolutions and attention are made of operands in bfloat16, in float32, and rounded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.env import seed_all_rng
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from zss_d2.engine import ZeroShotTrainer, load_config

METRICS = ("mIoU-S", "mIoU-U", "hIoU")
_ATEN = torch.ops.aten
_ATTENTION = _ATEN._scaled_dot_product_flash_attention_for_cpu.default
PRODUCTS = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN.convolution.default,
    _ATEN.convolution_backward.default,
    _ATTENTION,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


class EmulatedBfloat16(TorchDispatchMode):
    """Makes products of bfloat16 in float32; `count` says how many."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or not any(_has(x, torch.bfloat16) for x in args):
            return func(*args, **kwargs)
        self.count += 1
        result = func(*tree_map(_large, args), **tree_map(_large, kwargs))
        if func is _ATTENTION:  # its second result stays in float32
            return result[0].bfloat16(), *result[1:]
        return tree_map(lambda x: x.bfloat16() if _has(x, torch.float32) else x, result)


def _has(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype


def _large(value: Any) -> Any:
    return value.float() if _has(value, torch.bfloat16) else value


def train(args: argparse.Namespace, seed: int, precision: str) -> dict[str, float]:
    """Metrics of a training from the start, and of its evaluation."""
    own = ["SEED", seed, "MODEL.AUTOCAST", precision, "MODEL.DEVICE", args.device]
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config_file, [*args.opts, *own, "OUTPUT_DIR", folder])
        Path(folder).mkdir(exist_ok=True)
        seed_all_rng(seed)
        trainer = ZeroShotTrainer(cfg)
        emulated = args.device == "cpu" and precision == "bfloat16"
        with EmulatedBfloat16() if emulated else nullcontext() as mode:
            trainer.train()
        if emulated:
            print(f"  ({mode.count} products emulated)", flush=True)
        results = json.loads(Path(folder, "results.json").read_text())
    return results[cfg.DATASETS.TEST[0]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ldvc_mini.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--opts",
        nargs="+",
        default=["SOLVER.MAX_ITER", "100", "SOLVER.IMS_PER_BATCH", "4"],
        help="config keys and values (default: a short training)",
    )
    args = parser.parse_args()
    args.opts += ["DATALOADER.NUM_WORKERS", 0, "TEST.SHOW_IMAGES", 0, "TEST.PER_IMAGE", False]
    differences = []
    for seed in args.seeds:
        single, half = (train(args, seed, precision) for precision in ("float32", "bfloat16"))
        for name, metrics in (("float32", single), ("bfloat16", half)):
            scores = "  ".join(f"{key} {metrics[key]:.2f}" for key in METRICS)
            print(f"seed {seed}  {name:8}  {scores}", flush=True)
        differences.append(half["hIoU"] - single["hIoU"])
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    print(f"hIoU, bfloat16 - float32: {statistics.mean(differences):+.2f} (sd {spread:.2f})")


if __name__ == "__main__":
    main()
