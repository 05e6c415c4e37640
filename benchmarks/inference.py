#!/usr/bin/env python
"""LDVC and ZegCLIP per 512 x 512 image, as ratios to the bare image tower of open_clip, in one run.

python benchmarks/inference.py --repeats 5              # testing
python benchmarks/inference.py --repeats 5 --batch 16   # also 16 images at once, per image
python benchmarks/inference.py --repeats 3 --train      # a training step, with peak memory

Random weights: they do not change the time. The class embeddings are cached, as in testing.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable
from dataclasses import replace

import open_clip
import torch
from bench.timing import in_turn, peak_mib, ratios, spread
from detectron2.modeling import build_model
from torch import nn

from zss_d2.engine import load_config

CONFIGS = (
    ("20 classes, 10 prompts", ("configs/zegclip_voc.yaml", "configs/ldvc_voc.yaml")),
    ("171 classes, 100 prompts", ("configs/zegclip_coco.yaml", "configs/ldvc_coco.yaml")),
)


def build(config: str, device: str) -> nn.Module:
    opts = ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", device]
    return build_model(load_config(config, opts))


def inference(model: nn.Module, item: dict, batch: int = 1) -> Callable[[], object]:
    """The whole call for images: normalise, towers, decoder, scores at the image's size."""
    model.eval()

    def run() -> None:
        model.protocol = replace(model.protocol, batch=batch)
        with torch.inference_mode():
            model([item] * batch)

    return run


def training(model: nn.Module, item: dict) -> Callable[[], object]:
    """Forward and backward pass of one image."""
    model.train()

    def run() -> None:
        model.zero_grad()
        sum(model([item]).values()).backward()

    return run


def bare_tower(size: int, device: str) -> Callable[[], object]:
    """open_clip's own image tower on one image, without gradient."""
    visual = open_clip.create_model("ViT-B-16", force_image_size=size).visual.eval().to(device)
    images = torch.randn(1, 3, size, size, device=device)

    def run() -> None:
        with torch.inference_mode():
            visual(images)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the image, px")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, each of every model")
    parser.add_argument("--train", action="store_true", help="a training step instead of testing")
    parser.add_argument("--batch", type=int, default=1, help="images that are tested at once, too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # random weights are meant here

    size, device = args.size, args.device
    item = {
        "image": torch.randint(0, 255, (3, size, size), dtype=torch.uint8),
        "sem_seg": (torch.arange(size) * 4 // size).repeat(size, 1),
    }
    print(f"ViT-B-16, {size} x {size}, {device}, {torch.get_num_threads()} threads, fp32")
    baseline = bare_tower(size, device)
    for title, configs in CONFIGS:
        models = [build(config, device) for config in configs]
        prepare = training if args.train else inference
        calls = {"open_clip tower": baseline}
        calls |= {type(model).__name__: prepare(model, item) for model in models}
        images = dict.fromkeys(calls, 1)
        if args.batch > 1 and not args.train:
            for model in models:
                name = f"{type(model).__name__} x {args.batch}"
                calls[name], images[name] = inference(model, item, args.batch), args.batch
        for name, call in calls.items():
            call()
            if args.train and name != "open_clip tower":
                print(f"{title}: {name} peak {peak_mib(device):.0f} MiB of the process so far")
        rounds = [
            {name: seconds / images[name] for name, seconds in times.items()}
            for times in in_turn(calls, args.repeats, device)
        ]
        for name in calls:
            median = statistics.median(times[name] for times in rounds)
            print(
                f"{title}: {name:15s} {median * 1e3:7.0f} ms, ratio "
                f"{spread(ratios(rounds, name, 'open_clip tower'))}"
            )


if __name__ == "__main__":
    main()
