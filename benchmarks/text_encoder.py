#!/usr/bin/env python
"""Text tower up to the last end-of-text position against the full context, in one run.

python benchmarks/text_encoder.py --model ViT-B-16 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics

import open_clip
import torch
from bench.timing import in_turn, ratios, spread

from zss_d2.clip import TextEncoder
from zss_d2.data.spec.benchmark import load_benchmark


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

    calls = {"full": lambda: clip.encode_text(tokens), "ours": lambda: encoder.encode(tokens)}
    rounds = in_turn(calls, args.repeats)
    full, ours = (statistics.median(times[name] for times in rounds) for name in calls)
    print(f"{args.model}, {len(names)} prompts, {torch.get_num_threads()} threads, fp32, CPU")
    print(f"full context {full * 1e3:.0f} ms, to the last EOT {ours * 1e3:.0f} ms (medians)")
    print(f"ratio {spread(ratios(rounds, 'full', 'ours'), 1)} over {args.repeats} pairs")
    print(f"largest difference of a feature {difference:.1e}")


if __name__ == "__main__":
    main()
