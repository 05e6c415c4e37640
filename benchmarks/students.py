#!/usr/bin/env python
"""CLIP-ZSS students against LDVC per 512 x 512 image with 20 classes, in one run.

python benchmarks/students.py --repeats 5

Students are built as for testing, without CLIP; random weights do not change the time. Parameters
and multiply-adds (fvcore) are those of the student alone. Operations are those of a whole call but
for views, in brackets those of one that keeps gradients, for which nothing is folded.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable
from typing import Any

import torch
from bench.timing import seconds
from detectron2.modeling import build_model
from inference import build, inference
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from zss_d2.analysis.complexity import count
from zss_d2.engine import load_config

BASELINE = "configs/ldvc_voc.yaml"
MSCAN = "configs/clip_zss_voc.yaml"
STUDENTS = {
    "MSCAN-T": (MSCAN, "MODEL.CLIP_ZSS.ENCODER.NAME", "T", "MODEL.CLIP_ZSS.ENCODER.CHANNELS", 256),
    "MSCAN-S": (MSCAN, "MODEL.CLIP_ZSS.ENCODER.NAME", "S", "MODEL.CLIP_ZSS.ENCODER.CHANNELS", 256),
    "MSCAN-B": (MSCAN,),
    "Swin-T": ("configs/clip_zss_voc_swin_t.yaml",),
    "SegFormer-B2": ("configs/clip_zss_voc_segformer_b2.yaml",),
}


def build_student(config: str, *opts: object) -> nn.Module:
    """A student as in testing, with made-up text embeddings."""
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.CLIP_ZSS.TEACHER", False, *opts]
    model = build_model(load_config(config, overrides))
    rows = torch.randn_like(model.classifier.embeddings)
    model.classifier.load_state_dict({"embeddings": nn.functional.normalize(rows, dim=1)})
    return model


class Operations(TorchDispatchMode):
    """Counts what is called of torch's operators, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], object]) -> int:
    with Operations() as found:
        call()
    return found.count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the image, px")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, each of every model")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # random weights are meant here

    models = {"LDVC": build(BASELINE, "cpu")}
    models |= {name: build_student(*config) for name, config in STUDENTS.items()}
    item = {"image": torch.randint(0, 255, (3, args.size, args.size), dtype=torch.uint8)}
    calls = {name: inference(model, item) for name, model in models.items()}
    for call in calls.values():
        call()
    rounds = [
        {name: seconds(call, "cpu") for name, call in calls.items()} for _ in range(args.repeats)
    ]
    print(f"{args.size} x {args.size}, cpu, {torch.get_num_threads()} threads, fp32")
    for name, model in models.items():
        numbers = count(model, args.size)
        ratios = [times["LDVC"] / times[name] for times in rounds]
        folded = operations(calls[name])
        plain = operations(lambda model=model: model([item]))
        print(
            f"{name:13s} {numbers['parameters']:6.1f} M parameters {numbers['total']:6.1f} G "
            f"{statistics.median(times[name] for times in rounds) * 1e3:6.0f} ms, "
            f"{statistics.median(ratios):.1f} times as fast as LDVC "
            f"({min(ratios):.1f}-{max(ratios):.1f}), {folded} operations ({plain})",
            flush=True,
        )


if __name__ == "__main__":
    main()
