#!/usr/bin/env python
"""CLS and dense tokens of every training-free method, as ratios to open_clip's bare image tower.

python benchmarks/training_free.py --size 448 --repeats 5

One ViT-B/16 with random weights, which do not change the time, serves all of them, in turns. The
settings are those of configs/<method>_voc20.yaml; scores and windows are left out. Multiply-adds
are counted too, as a ratio that no other process changes.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable

import torch
from bench.timing import in_turn, ratios, spread
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zss_d2.clip import ImageEncoder, build_clip_towers
from zss_d2.clip.dense_tokens import DenseTokens
from zss_d2.engine import load_config

METHODS = ("maskclip", "sclip", "clearclip", "naclip", "resclip", "clip_surgery", "gem")
TOWER = "open_clip tower"


def multiply_adds(call: Callable[[], object]) -> int:
    """Of one call, attention included."""
    # The counter does not know the fused kernels of a CPU, nor torch's shortcut for whole blocks.
    shortcut = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcut)
    return counter.get_total_flops() // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=448, help="side of the image, px")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, each of every method")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # random weights are meant here

    visual = build_clip_towers("ViT-B-16", "").image.visual.to(args.device)
    images = torch.randn(1, 3, args.size, args.size, device=args.device)
    modes = {"tokens": DenseTokens.of("tokens")}
    modes |= {m: DenseTokens.from_config(load_config(f"configs/{m}_voc20.yaml")) for m in METHODS}
    calls = {TOWER: bare_tower(visual, images)} | {
        name: without_gradients(
            ImageEncoder(visual, prompt_length=0, prompt_dropout=0.0, dense_tokens=mode).eval(),
            images,
        )
        for name, mode in modes.items()
    }
    counts = {name: multiply_adds(call) for name, call in calls.items()}
    rounds = in_turn(calls, args.repeats, args.device)
    threads = torch.get_num_threads()
    print(f"ViT-B-16, {args.size} x {args.size}, {args.device}, {threads} threads, fp32")
    for name in calls:
        median = statistics.median(times[name] for times in rounds)
        print(
            f"{name:15s} {median * 1e3:7.0f} ms, ratio {spread(ratios(rounds, name, TOWER))}, "
            f"multiply-adds {counts[name] / counts[TOWER]:.3f}"
        )


def without_gradients(module: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            module(images)

    return run


def bare_tower(visual: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """open_clip's blocks as they are, on the tokens of the images, to the CLS token."""
    embed = ImageEncoder(visual, prompt_length=0, prompt_dropout=0.0)._embed

    def run() -> None:
        with torch.no_grad():
            tokens = visual.transformer(embed(images)[0])
            visual.ln_post(tokens[:, 0]) @ visual.proj

    return run


if __name__ == "__main__":
    main()
