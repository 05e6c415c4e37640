#!/usr/bin/env python
"""What every part of CLIP-ZSS and C2S costs in a training step, as a ratio to the step of CE + GLM.

python benchmarks/clip_zss_step.py
python benchmarks/clip_zss_step.py --count --config-file configs/clip_to_seg_voc.yaml --size 512

Steps are forward and backward passes, with the teacher's and without the optimizer; those of all
rows take turns in one process, so that the ratios hold on a machine that does other things. With
--count it prints multiply-adds of one image in their place, of convolutions and linear layers.
Images are scenes of the mini world, enlarged, so that there are about as many regions as in real
training. CLIP's weights matter for that, for the time they do not. DATASETS.TRAIN needs no files.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zss_d2.data.synthetic.mini.canvas import SIZE
from zss_d2.data.synthetic.mini.scene import draw_scene
from zss_d2.data.synthetic.mini.vocabulary import VOID
from zss_d2.engine import load_config

_KEY = "MODEL.CLIP_ZSS."
_GLM = {"PSEUDO_WEIGHT": 0.0, "LOCAL_WEIGHT": 0.0, "NEL_WEIGHT": 0.0}
_PLM = {"PSEUDO_WEIGHT": 0.3, "PROTOTYPES": "teacher", "LOCAL_WEIGHT": 0.0, "NEL_WEIGHT": 0.0}
_SYNTHESIZER = {**_PLM, "PROTOTYPES": "synthesizer", "SYNTHESIZER.MEMORY": "global"}
# What is changed of the config, which is to be one of C2S; the last ones are the config as it is.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "CE": {**_GLM, "GLOBAL_WEIGHT": 0.0},
    "CE + GLM": _GLM,
    "+ local, a pass per region": {**_GLM, "LOCAL_WEIGHT": 1.0, "LOCAL.CLS": "passes"},
    "+ local, one pass": {**_GLM, "LOCAL_WEIGHT": 1.0, "LOCAL.CLS": "attention"},
    "+ PLM, all tokens": {**_PLM, "REGIONS": "all"},
    "+ PLM, unannotated tokens": {**_PLM, "REGIONS": "unannotated"},
    "  and C_g for the synthesizer": {**_SYNTHESIZER, "REGIONS": "unannotated"},
    "  and C_g, C_l": {**_SYNTHESIZER, "SYNTHESIZER.MEMORY": "global_local"},
    "complete, one pass": {"LOCAL.CLS": "attention"},
    "complete": {},
}
_BASE = "CE + GLM"


def scenes(model: nn.Module, size: int, batch: int) -> list[dict]:
    """Scenes of the mini world; every fourth class has no labels, the others those of seen ones."""
    seen = [model.classes.index(name) for name in model.labelled_classes]
    known = [model.ignore_label if i % 4 == 3 else seen[i % len(seen)] for i in range(VOID)]
    table = torch.tensor([*known, model.ignore_label])
    items = []
    for index in range(batch):
        scene = draw_scene("train", index)
        place = torch.arange(size) * SIZE // size
        image, labels = (
            torch.from_numpy(x)[place[:, None], place] for x in (scene.image, scene.labels)
        )
        items.append({"image": image.permute(2, 0, 1), "sem_seg": table[labels.long()]})
    return items


def regions_per_image(model: nn.Module, items: list[dict]) -> float:
    """How many regions get a CLS token."""
    maker, found = model.learner.local_learning.teacher, []
    tokens = maker.tokens
    maker.tokens = lambda *args: found.append(tokens(*args)) or found[0]
    model(items)
    maker.tokens = tokens
    return found[0].present.sum().item() / len(items)


def step_seconds(model: nn.Module, items: list[dict]) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    sum(model(items).values()).backward()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds


@torch.no_grad()
def step_operations(model: nn.Module, items: list[dict]) -> float:
    """Multiply-adds of one step; the backward pass counts as two forward passes of the student.

    Torch's own count of backward passes takes convolutions by channel for dense ones.
    """
    images = torch.stack([model.normalise(item["image"]) for item in items])
    operations = []
    for run in (lambda: model(items), lambda: model.student(images)):
        with FlopCounterMode(display=False) as counter:
            run()
        operations.append(counter.get_total_flops() / 2)
    return operations[0] + 2 * operations[1]


def changed(cfg: CfgNode, changes: Mapping[str, Any]) -> CfgNode:
    """The config of a row."""
    own = cfg.clone()
    own.merge_from_list([part for key, x in changes.items() for part in (_KEY + key, x)])
    return own


def print_row(name: str, value: str, ratios: Sequence[float]) -> None:
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{name:32} {value:>10}  {middle:5.2f} ({low:.2f} to {high:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="configs/clip_to_seg_mini.yaml")
    parser.add_argument("--size", type=int, default=96, help="side of the images, px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="rounds over all rows")
    parser.add_argument("--count", action="store_true", help="multiply-adds in the place of time")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args()
    torch.manual_seed(0)

    cfg = load_config(args.config_file, args.opts)
    whole = build_model(cfg).train()
    items = scenes(whole, args.size, 1 if args.count else args.batch)
    parameters = sum(p.numel() for p in whole.student.parameters()) / 1e6
    print(
        f"{args.config_file}: student of {parameters:.1f} M, {len(items)} images of {args.size} px,"
        f" {torch.get_num_threads()} threads, {whole.device},"
        f" {regions_per_image(whole, items):.1f} regions each; times {_BASE}, median (range)"
    )
    if args.count:
        base = None
        for name in sorted(ROWS, key=lambda name: name != _BASE):
            number = step_operations(build_model(changed(cfg, ROWS[name])).train(), items)
            base = base or number
            print_row(name, f"{number / 1e9:.2f} G", [number / base])
        return
    models = {name: build_model(changed(cfg, x)).train() for name, x in ROWS.items()}
    for model in models.values():
        step_seconds(model, items)
    rounds = [
        {name: step_seconds(model, items) for name, model in models.items()}
        for _ in range(args.repeats)
    ]
    for name in models:
        times = [one[name] for one in rounds]
        ratios = [one[name] / one[_BASE] for one in rounds]
        print_row(name, f"{1e3 * statistics.median(times):.0f} ms", ratios)


if __name__ == "__main__":
    main()
