#!/usr/bin/env python
"""Share of PLM and GLM in a training step of CLIP-ZSS, the teacher's forward pass left out.

python benchmarks/clip_zss_step.py --config-file configs/clip_zss_mini.yaml --size 96 --batch 16

The same student with the same losses on ground truth alone is the step without them. Images and
labels are random; a third of every image is open. CLIP's weights do not matter for the time, so
"MODEL.CLIP.PRETRAINED ''" saves a download. DATASETS.TRAIN needs no files.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from zss_d2.clip import ImageFeatures
from zss_d2.engine import load_config


class KnownTokens(nn.Module):
    """Computes the teacher's features once and then returns them again, at no cost."""

    def __init__(self, teacher: nn.Module):
        super().__init__()
        self.teacher = teacher
        self.features: ImageFeatures | None = None
        self.seconds = 0.0  # of the teacher's forward pass

    def forward(self, images: Tensor) -> ImageFeatures:
        if self.features is None:
            start = time.perf_counter()
            self.features = self.teacher(images)
            self.seconds = time.perf_counter() - start
        return self.features


def random_batch(model: nn.Module, size: int, batch: int) -> list[dict]:
    """Images with three vertical stripes: two seen classes and nothing."""
    seen = torch.tensor([model.classes.index(name) for name in model.labelled_classes])
    items = []
    for _ in range(batch):
        ids = seen[torch.randint(len(seen), (2,))].tolist()
        columns = torch.arange(size) * 3 // size
        stripe = torch.tensor([*ids, model.ignore_label])[columns]
        image = torch.randint(0, 255, (3, size, size), dtype=torch.uint8)
        items.append({"image": image, "sem_seg": stripe.expand(size, size).contiguous()})
    return items


def step_seconds(model: nn.Module, items: list[dict]) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    sum(model(items).values()).backward()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds


def without_teaching(cfg: CfgNode) -> CfgNode:
    """The same student on ground truth alone."""
    plain = copy.deepcopy(cfg)
    plain.merge_from_list(
        ["MODEL.CLIP_ZSS.GLOBAL_WEIGHT", 0.0, "MODEL.CLIP_ZSS.PSEUDO_WEIGHT", 0.0]
    )
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="configs/clip_zss_mini.yaml")
    parser.add_argument("--size", type=int, default=96, help="side of the images, px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5, help="paired measurements")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values")
    args = parser.parse_args()
    torch.manual_seed(0)

    cfg = load_config(args.config_file, args.opts)
    full, plain = build_model(cfg).train(), build_model(without_teaching(cfg)).train()
    items = random_batch(full, args.size, args.batch)
    teacher = full.learner.teacher = KnownTokens(full.learner.teacher)

    for model in (full, plain):
        step_seconds(model, items)
    pairs = [(step_seconds(full, items), step_seconds(plain, items)) for _ in range(args.repeats)]
    medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
    shares = [100 * (1 - without / whole) for whole, without in pairs]
    parameters = sum(p.numel() for p in full.student.parameters()) / 1e6
    print(
        f"{args.config_file}: student of {parameters:.1f} M, {args.batch} images of {args.size} px,"
        f" {torch.get_num_threads()} threads, {full.device}"
    )
    print(
        f"step {medians[0] * 1e3:.0f} ms, on ground truth alone {medians[1] * 1e3:.0f} ms (medians)"
        f"; the teacher would add {teacher.seconds * 1e3:.0f} ms"
    )
    print(
        f"PLM + GLM are {statistics.median(shares):.0f} % of the step "
        f"({min(shares):.0f}-{max(shares):.0f} over {args.repeats} pairs)"
    )


if __name__ == "__main__":
    main()
