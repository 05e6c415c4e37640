#!/usr/bin/env python
"""Text tower up to the last end-of-text position against the full context, in one run.

python benchmarks/text_encoder.py --model ViT-B-16 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import open_clip
import torch

from zss_d2.clip import TextEncoder
from zss_d2.data.spec.benchmark import load_benchmark


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16", help="name of an open_clip model")
    parser.add_argument("--benchmark", default="coco_stuff", help="whose class names to embed")
    parser.add_argument("--repeats", type=int, default=5, help="paired measurements")
    args = parser.parse_args()

    clip = open_clip.create_model(args.model).eval()
    encoder = TextEncoder(clip, open_clip.get_tokenizer(args.model))
    names = load_benchmark(args.benchmark).classes
    tokens = encoder.tokenizer([f"a photo of a {name}." for name in names])
    difference = (clip.encode_text(tokens) - encoder.encode(tokens)).abs().max().item()

    pairs = [
        (seconds(lambda: clip.encode_text(tokens)), seconds(lambda: encoder.encode(tokens)))
        for _ in range(args.repeats)
    ]
    full, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    print(f"{args.model}, {len(names)} prompts, {torch.get_num_threads()} threads, fp32, CPU")
    print(f"full context {full * 1e3:.0f} ms, to the last EOT {ours * 1e3:.0f} ms (medians)")
    print(
        f"ratio {full / ours:.1f} ({min(ratios):.1f}-{max(ratios):.1f} over {args.repeats} pairs)"
    )
    print(f"largest difference of a feature {difference:.1e}")


if __name__ == "__main__":
    main()
