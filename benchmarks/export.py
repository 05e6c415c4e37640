#!/usr/bin/env python
"""An exported student against eager: time, file size and, with --evaluate, the score.

python benchmarks/export.py output/clip_zss_mini --size 224 --evaluate

The model, its ONNX file and the int8 file of that take turns on one image, with as many threads.
--evaluate runs the test of the config's data sets with logits of each of them; results of the run
stay as they are.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import MethodType

import numpy as np
import torch
from bench.timing import seconds

from zss_d2 import load_model
from zss_d2.engine import ZeroShotTrainer
from zss_d2.exchange.export.exporting import traced, write_onnx
from zss_d2.exchange.export.graph import GraphSettings
from zss_d2.exchange.export.images import made_up_images
from zss_d2.exchange.export.int8 import write_int8
from zss_d2.exchange.export.onnx_file import OnnxSession
from zss_d2.modeling import ZeroShotSegmentor


def evaluated(model: ZeroShotSegmentor, cfg, session: OnnxSession | None) -> dict:
    """Metrics of a test, with the logits of a file; None: of the model."""

    def from_file(self: ZeroShotSegmentor, images: torch.Tensor, class_names) -> torch.Tensor:
        pixels = images * self.pixel_std + self.pixel_mean
        return torch.from_numpy(session({"image": pixels.numpy()})["logits"])

    if session is not None:
        model.class_logits = MethodType(from_file, model)
    results = ZeroShotTrainer.test(cfg, model)
    vars(model).pop("class_logits", None)
    return next(iter(results.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run of a student")
    parser.add_argument("--size", type=int, default=224, help="side of the image, px")
    parser.add_argument("--repeats", type=int, default=7, help="rounds, each of all three")
    parser.add_argument("--evaluate", action="store_true", help="also the score of each")
    args = parser.parse_args()
    logging.disable(logging.WARNING)

    predictor = load_model(args.run, device="cpu", training_free=False)
    model = predictor.segmentor
    with tempfile.TemporaryDirectory() as name:
        path, small = Path(name, "model.onnx"), Path(name, "model.int8.onnx")
        exported = traced(predictor, model.classes, GraphSettings(resize=False))
        step = model.size_divisibility
        images = made_up_images([(2 * step, 3 * step), (args.size, args.size)])
        print("float:", write_onnx(exported, path, images, lambda what: None))
        write_int8(path, small)
        sessions = {"onnxruntime": OnnxSession(path), "int8": OnnxSession(small)}
        print("int8: ", exported.parity(sessions["int8"], images))
        sizes = {"onnxruntime": path.stat().st_size, "int8": small.stat().st_size}
    pixels = images[1].transpose(2, 0, 1)[None].astype(np.float32)
    normalised = model.normalise(torch.from_numpy(pixels[0]))[None]

    def eager() -> torch.Tensor:
        with torch.inference_mode():
            return model.logits(normalised, model.classes)

    calls: dict[str, Callable[[], object]] = {"eager": eager}
    calls |= {name: lambda x=x: x({"image": pixels}) for name, x in sessions.items()}
    for call in calls.values():
        call()
    rounds = [
        {name: seconds(call, "cpu") for name, call in calls.items()} for _ in range(args.repeats)
    ]
    print(f"{args.size} x {args.size}, cpu, {torch.get_num_threads()} threads")
    for name in calls:
        times = [x[name] for x in rounds]
        ratios = [x["eager"] / x[name] for x in rounds]
        size = f", {sizes[name] / 2**20:.2f} MiB" if name in sizes else ""
        print(
            f"{name:12s} {statistics.median(times) * 1e3:6.1f} ms, {statistics.median(ratios):.2f} "
            f"times as fast as eager ({min(ratios):.2f}-{max(ratios):.2f}){size}",
            flush=True,
        )
    if not args.evaluate:
        return
    with tempfile.TemporaryDirectory() as folder:
        cfg = predictor.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
        for name, session in {"eager": None, **sessions}.items():
            scores = evaluated(model, cfg, session)
            scores = scores.get("sem_seg", scores)
            shown = ", ".join(f"{key} {scores[key]:.2f}" for key in ("mIoU", "hIoU"))
            print(f"{name:12s} {shown}", flush=True)


if __name__ == "__main__":
    main()
