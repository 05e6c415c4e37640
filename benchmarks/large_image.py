#!/usr/bin/env python
"""Peak memory of segmenting a large image into many classes, against its whole score map.

python benchmarks/large_image.py --width 4000 --height 3000 --classes 171
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from bench.timing import peak_mib
from detectron2.modeling import build_model

from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.engine import load_config

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4000, help="px")
    parser.add_argument("--height", type=int, default=3000, help="px")
    parser.add_argument("--classes", type=int, default=171, help="at most those of COCO-Stuff")
    parser.add_argument("--config-file", default=str(ROOT / "configs/ldvc_voc_tiny_cpu.yaml"))
    args = parser.parse_args()

    model = build_model(load_config(args.config_file)).eval()
    names = load_benchmark("coco_stuff").classes[: args.classes]
    item = {"height": args.height, "width": args.width, "vocabulary": names}
    whole = len(names) * args.height * args.width * 4 / 2**20
    print(
        f"{args.width} x {args.height} px, {len(names)} classes: scores of {whole:.0f} MiB in fp32"
    )
    # The network sees the resized image, as when testing, or with windows the image itself.
    for name, (height, width), crop in (
        ("resized to a short edge of 512 px", (512, 512 * args.width // args.height), None),
        ("windows of 512 px over the image", (args.height, args.width), 512),
    ):
        model.protocol = replace(model.protocol, slide_crop=crop, slide_stride=426)
        image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
        before, start = peak_mib(), time.perf_counter()
        with torch.inference_mode():
            (result,) = model([{**item, "image": image}])
        labels = result["sem_seg"].argmax(dim=0)
        seconds = time.perf_counter() - start
        print(
            f"{name:34} {tuple(labels.shape)} labels, {seconds:.1f} s, peak memory "
            f"{peak_mib():.0f} MiB (+{peak_mib() - before:.0f})"
        )


if __name__ == "__main__":
    main()
