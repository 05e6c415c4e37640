#!/usr/bin/env python
"""Images per second and peak memory of ``zss predict``: batch 1 and 16, one and two processes.

python benchmarks/predict.py --images 500 --config-file configs/maskclip_mini.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from zss_d2.data.synthetic.mini.scene import draw_scene
from zss_d2.utils.cores import cpu_cores

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("red dotted thing", "blue plain thing", "grass", "wood", "water")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--config-file", default=str(ROOT / "configs/maskclip_mini.yaml"))
    parser.add_argument("--weights", help="checkpoint, for a method with training")
    parser.add_argument("--formats", nargs="+", default=["labels", "overlay"])
    args = parser.parse_args()

    options = ["--config-file", args.config_file, "--classes", *WORDS, "--formats", *args.formats]
    options += ["--weights", args.weights] if args.weights else []
    cores = len(cpu_cores())
    print(f"{args.images} mini scenes, {cores} CPU cores, {Path(args.config_file).name}")
    with tempfile.TemporaryDirectory() as folder:
        images = draw(Path(folder, "images"), args.images)
        first = None
        for name, launcher, batch in (
            ("one process, batch 1", (), 1),
            ("one process, batch 16", (), 16),
            ("two processes, batch 1", TWO, 1),
            ("two processes, batch 16", TWO, 16),
        ):
            command = [*launcher, "predict.py", str(images), *options, "--batch", str(batch)]
            output = Path(folder, f"{batch} of {len(launcher)}")
            peak = run([*command, "--output", str(output)])
            manifest = json.loads((output / "predict.json").read_text(encoding="utf-8"))
            rate = args.images / manifest["last_run"]["labelling_seconds"]
            first = first or rate
            print(
                f"{name:24} {rate:6.1f} images/s ({rate / first:.2f} x), peak memory of a process "
                f"{peak:.0f} MiB",
                flush=True,
            )


def draw(folder: Path, number: int) -> Path:
    folder.mkdir()
    for index in range(number):
        image = Image.fromarray(draw_scene("val", index, 0).image)
        image.save(folder / f"{index:05}.png", compress_level=1)
    return folder


def run(arguments: Sequence[str]) -> float:
    """Run a command; returns the peak memory, MiB, of the largest of its processes."""
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            errors.seek(0)
            sys.exit(errors.read().decode())
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
