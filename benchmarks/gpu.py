#!/usr/bin/env python
"""Every method on a GPU against the bare image tower of open_clip, in one table.

python benchmarks/gpu.py --json gpu.json          # on a GPU, at most 4 minutes
python benchmarks/gpu.py --device cpu --tiny      # only shows that all of it runs

A ratio is in forward passes of the bare tower with the same batch and precision (bf16: under
autocast, as models are used; with its weights in bfloat16 too it has a row of its own). A training
step is the forward and the backward pass, without an optimizer; images
come from page-locked memory. Weights are random, which does not change the time. Also runs on
earlier versions, copied there with timing.py, photos.py and gpu_checks.py: what they lack is said.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from bench import gpu_checks
from bench.gpu_table import LOADER_GOAL, judge, table, verdict
from bench.timing import peak_mib, seconds, synchronise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

import zss_d2.clip  # noqa: F401  registers the small towers
from zss_d2.engine import load_config

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("bf16", "fp32", "TF32")  # the first ones matter most, if time runs short
TINY_CLIP = ("MODEL.CLIP.NAME", "zss-tiny", "MODEL.VISUAL_PROMPTS.LENGTH", 4)
_TINY_LDVC = ("MODEL.LDVC.NUM_LAYERS", 2, "MODEL.LDVC.NUM_HEADS", 4, "MODEL.LDVC.FFN_DIM", 64)
_TINY_STUDENT = ("MODEL.CLIP.NAME", "zss-tiny", "MODEL.CLIP_ZSS.ENCODER.NAME", "mini")
_MSCAN_T = ("MODEL.CLIP_ZSS.ENCODER.NAME", "T", "MODEL.CLIP_ZSS.ENCODER.CHANNELS", 256)


@dataclass(frozen=True)
class Model:
    """A config, and what makes it small enough for a CPU."""

    config: str
    opts: tuple = ()
    tiny: tuple = ()
    trained: bool = True  # whether its training steps are in the table


MODELS = {
    "zegclip_voc": Model("zegclip_voc", tiny=(*TINY_CLIP, "MODEL.ZEGCLIP.NUM_HEADS", 4)),
    "ldvc_voc": Model("ldvc_voc", tiny=(*TINY_CLIP, *_TINY_LDVC)),
    "zegclip_coco": Model("zegclip_coco", tiny=(*TINY_CLIP, "MODEL.ZEGCLIP.NUM_HEADS", 4)),
    "ldvc_coco": Model("ldvc_coco", tiny=(*TINY_CLIP, *_TINY_LDVC)),
    "MSCAN-B": Model("clip_zss_voc", tiny=(*_TINY_STUDENT, "MODEL.CLIP_ZSS.ENCODER.CHANNELS", 32)),
    "MSCAN-T": Model(
        "clip_zss_voc", _MSCAN_T, (*_TINY_STUDENT, "MODEL.CLIP_ZSS.ENCODER.CHANNELS", 16), False
    ),
}


AGREEING = ("zegclip_voc", "ldvc_voc", "MSCAN-B", "MSCAN-T")


@dataclass
class Run:
    """What is measured, how large, until when, and what has come out."""

    device: str
    tiny: bool
    deadline: float
    batch: int
    size: int
    tower: str
    least_s: float  # of a measurement, after the first calls
    wanted: Sequence[str] = PRECISIONS
    cells: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def precisions(self) -> tuple[str, ...]:
        """TF32 is CUDA's."""
        there = PRECISIONS if self.device.startswith("cuda") else PRECISIONS[:2]
        return tuple(precision for precision in there if precision in self.wanted)

    def note(self, text: str) -> None:
        print(text, flush=True)
        self.notes.append(text)

    def attempt(self, what: str, function: Callable[[], None]) -> None:
        """Call the function; when time is up or it fails, one line says so and the rest goes on."""
        if time.monotonic() > self.deadline:
            self.note(f"{what}: left out, the time is up (--minutes)")
            return
        try:
            function()
        except Exception as error:  # whatever a row dies of, the others are to be seen
            reason = str(error).partition("\n")[0]
            self.note(f"{what}: FAILED, {type(error).__name__}: {reason}")
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def config(self, name: str, precision: str, *opts: object) -> CfgNode:
        """The config of a model of `MODELS` in a precision (""; its own), with random weights."""
        model = MODELS[name]
        path = ROOT / "configs" / f"{model.config}.yaml"
        chosen: list[object] = []
        if precision:
            chosen = ["MODEL.AUTOCAST", "bfloat16" if precision == "bf16" else ""]
            if "TF32" in load_config(path, ["MODEL.DEVICE", self.device]).MODEL:
                chosen += ["MODEL.TF32", precision != "fp32"]
        small = [*model.tiny, *self.tiny_sides()] if self.tiny else []
        fixed = ["MODEL.DEVICE", self.device, "MODEL.CLIP.PRETRAINED", ""]
        fixed += ["SOLVER.IMS_PER_BATCH", self.batch]
        return load_config(path, [*fixed, *chosen, *model.opts, *small, *opts])

    def tiny_sides(self) -> list[object]:
        size = self.size
        return [
            *("INPUT.CROP.SIZE", [size, size], "INPUT.RESIZE_BASE", [4 * size, size]),
            *("INPUT.MIN_SIZE_TEST", size),
        ]

    def build(self, name: str, precision: str, *opts: object) -> nn.Module:
        cfg = self.config(name, precision, *opts)
        if precision:
            set_tf32(precision)  # of backward passes too, and of versions without a key for it
        torch.manual_seed(0)
        return build_model(cfg)

    def items(self, number: int) -> list[dict[str, Any]]:
        return gpu_checks.items(number, self.size, self.device)

    def milliseconds(self, function: Callable[[], object]) -> float:
        """Median of as many calls as fit into `least_s`, three to 50, after three others."""
        if self.tiny:
            return 1e3 * seconds(function, self.device)
        for _ in range(3):
            function()
        times: list[float] = []
        while len(times) < 3 or (sum(times) < self.least_s and len(times) < 50):
            times.append(seconds(function, self.device))
        return 1e3 * statistics.median(times)

    def tower_ms(self, precision: str, batch: int) -> float | None:
        """What the bare tower takes; None where that was not measured."""
        found = [
            c["ms"]
            for c in self.cells
            if (c["measure"], c["precision"], c["batch"]) == ("tower", precision, batch)
        ]
        return found[0] if found else None

    def record(self, measure: str, name: str, precision: str, batch: int, **values: Any) -> None:
        cell = {"measure": measure, "model": name, "precision": precision, "batch": batch, **values}
        tower = self.tower_ms(precision, batch) if "ms" in values else None
        if tower and measure != "tower":
            cell["ratio"] = values["ms"] / tower
        if not self.tiny:
            cell["goals"] = judge(cell, self.cells)
        self.cells.append(cell)
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in cell.items()
            if key not in ("measure", "model", "precision", "batch", "goals")
        )
        shown += "".join(f"; {g['goal']}: {verdict(g['ok'])}" for g in cell.get("goals", ()))
        print(f"{measure:18} {name:13} {precision} x{batch}: {shown}", flush=True)


def set_tf32(precision: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def with_smaller_batches(run: Run, what: str, batch: int, call: Callable[[int], None]) -> None:
    """Call with the batch; while memory is short, with half of it."""
    while True:
        try:
            return call(batch)
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
        torch.cuda.empty_cache()
        batch //= 2
        run.note(f"{what}: out of memory, so with a batch of {batch}")


def measure_tower(run: Run, precision: str) -> None:
    """open_clip's own image tower, without gradient."""
    visual = open_clip.create_model(run.tower, force_image_size=run.size).visual
    visual = visual.eval().to(run.device)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(precision)
    half = torch.autocast(run.device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")
    with half, torch.inference_mode():
        batch = run.batch
        # Smaller ones stand by for a model that needs them.
        while batch >= 1:
            measure_pass(run, "tower", visual, precision, batch)
            batch //= 2
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    if precision == "bf16":
        visual = visual.bfloat16()
        with torch.inference_mode():
            for batch in (run.batch, 1):
                measure_pass(run, f"all in bfloat16, x{batch}", visual, precision, batch)


def measure_pass(run: Run, what: str, visual: nn.Module, precision: str, batch: int) -> None:
    dtype = next(visual.parameters()).dtype
    images = torch.randn(batch, 3, run.size, run.size, device=run.device, dtype=dtype)
    name = "tower" if what != "tower" else run.tower
    run.record(what, name, precision, batch, ms=run.milliseconds(lambda: visual(images)))


def measure_training(run: Run, name: str, precision: str, model: nn.Module) -> None:
    """Forward and backward pass, and the most memory that torch has had in it."""
    model.train()

    def measure(batch: int) -> None:
        items = run.items(batch)

        def step() -> None:
            model.zero_grad()
            sum(model(items).values()).backward()

        if run.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        ms = run.milliseconds(step)
        memory = {"gib": peak_mib(run.device) / 1024} if run.device.startswith("cuda") else {}
        run.record("training step", name, precision, batch, ms=ms, **memory)
        model.zero_grad()

    with_smaller_batches(run, f"training step of {name}, {precision}", run.batch, measure)


def measure_inference(run: Run, name: str, precision: str, model: nn.Module, mark: str) -> None:
    """One image, with its launches, and a batch of them in one call."""
    model.eval()

    def measure(batch: int) -> None:
        items = run.items(batch)

        def call() -> None:
            with torch.inference_mode():
                model(items)

        ms = run.milliseconds(call)
        measure = "one image" if batch == 1 else "images in a call"
        # Torch's convolutions in bfloat16 on a CPU are very many operators.
        counted = batch == 1 and (run.device.startswith("cuda") or precision == "fp32")
        count = {"launches": gpu_checks.launches(call, run.device)} if counted else {}
        run.record(measure + mark, name, precision, batch, ms=ms, **count)

    measure(1)
    what = f"images in a call of {name}, {precision}{mark}"
    with_smaller_batches(run, what, run.batch, measure)


def measure_model(run: Run, name: str, precision: str, keys: list[object], mark: str) -> None:
    """Training steps, but with a mark, and inference, but in TF32."""
    model = run.build(name, precision, *keys)
    what = f"{name}, {precision}{mark}"
    if MODELS[name].trained and not mark:
        run.attempt(
            f"training step of {what}", lambda: measure_training(run, name, precision, model)
        )
    if precision != "TF32":
        run.attempt(
            f"inference of {what}", lambda: measure_inference(run, name, precision, model, mark)
        )


def inference_options(run: Run) -> list[tuple[str, list[object]]]:
    """(mark, keys): as the config has it, and where it has CUDA graphs, with the other choice."""
    test = run.config("ldvc_voc", "fp32").TEST
    keys = ["TEST.BATCH", run.batch] if "BATCH" in test else []
    if "BATCH" not in test:
        run.note("TEST.BATCH: not in this version")
    if "CUDA_GRAPHS" not in test:
        run.note("TEST.CUDA_GRAPHS: not in this version")
        return [("", keys)]
    if not run.device.startswith("cuda"):
        run.note("TEST.CUDA_GRAPHS: of a GPU only")
        return [("", keys)]
    mark = ", no graphs" if test.CUDA_GRAPHS else ", graphs"
    return [("", keys), (mark, [*keys, "TEST.CUDA_GRAPHS", not test.CUDA_GRAPHS])]


def measure_all(run: Run) -> None:
    """The table, in an order in which what is left out when time is up matters least."""
    for precision in run.precisions:
        run.attempt(f"tower, {precision}", lambda p=precision: measure_tower(run, p))
    options = inference_options(run)
    for precision in run.precisions:
        for name in MODELS:
            for mark, keys in options if precision == "bf16" else options[:1]:
                run.attempt(
                    f"{name}, {precision}{mark}",
                    lambda n=name, p=precision, k=keys, m=mark: measure_model(run, n, p, k, m),
                )
        if precision == "bf16":
            check_all(run, NETWORKS)
        if precision == "fp32" or run.precisions == ("bf16",):
            check_all(run, FILES)


# Precision of the networks, and agreement with the CPU: one model of a kind is enough.
NETWORKS: tuple[tuple[str, gpu_checks.Check], ...] = (
    *((f"{name} on the CPU", partial(gpu_checks.agree, name)) for name in AGREEING),
    ("autocast", gpu_checks.autocast),
    ("AMP", gpu_checks.amp),
)
# What reads photos.
FILES: tuple[tuple[str, gpu_checks.Check], ...] = (
    ("loader", partial(gpu_checks.loader, LOADER_GOAL)),
    ("predict", gpu_checks.predict),
    ("whole run", gpu_checks.whole_run),
)


def check_all(run: Run, checks: Sequence[tuple[str, gpu_checks.Check]]) -> None:
    def keep(name: str, text: str, ok: bool | None) -> None:
        run.checks.append({"check": name, "found": text, "ok": ok})
        print(f"check: {name}: {text}: {verdict(ok)}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name, check in checks:
            run.attempt(name, lambda c=check: c(run, Path(folder), keep))


def machine(device: str) -> dict[str, str]:
    """What the figures depend on."""
    import platform

    named = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {
        "device": named,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "date": date.today().isoformat(),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks and images, 2 a batch")
    parser.add_argument("--batch", type=int, help="16, or with --tiny 2")
    parser.add_argument("--minutes", type=float, default=3.7, help="then no other row is begun")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)  # random weights are meant here

    small = args.tiny
    if not small and not args.device.startswith("cuda"):
        small = True
        print("no GPU, hence --tiny: this shows that all of it runs, the times mean nothing")
    run = Run(
        device=args.device,
        tiny=small,
        deadline=time.monotonic() + 60 * args.minutes,
        batch=args.batch or (2 if small else 16),
        size=64 if small else 512,
        tower="zss-tiny" if small else "ViT-B-16",
        least_s=0.0 if small else 0.25,
        wanted=args.precisions,
    )
    about = machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    start = time.monotonic()
    measure_all(run)
    synchronise(args.device)

    print("\n" + table(run.cells, ["tower", *MODELS], run.batch, run.size) + "\n")
    if small:
        print("the goals are for the real sizes")
    result = {
        "machine": about,
        "cells": run.cells,
        "checks": run.checks,
        "notes": run.notes,
        "minutes": (time.monotonic() - start) / 60,
        "models": {name: asdict(model) for name, model in MODELS.items()},
    }
    for note in run.notes:
        print(f"note: {note}")
    print(f"{result['minutes']:.1f} minutes")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
    sys.exit(0)
