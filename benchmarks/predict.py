#!/usr/bin/env python
"""Images per second and peak memory of ``zss predict``: batch 1 and 16, one and two processes.

python benchmarks/predict.py --images 500 --config-file configs/maskclip_mini.yaml
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
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
            command = [*launcher, "predict.py", *options, "--batch", str(batch), "--output"]
            output = f"{folder}/{batch} of {len(launcher)}"
            # A single image takes as long as all that is not labelling.
            start, _ = run([*command, f"{output}, one", f"{images}/00000.png"])
            seconds, peak = run([*command, output, str(images)])
            rate = (args.images - 1) / (seconds - start)
            first = first or rate
            print(
                f"{name:24} {rate:6.1f} images/s ({rate / first:.2f} x) after {start:.1f} s of "
                f"start; peak memory of all processes {peak:.0f} MiB",
                flush=True,
            )


def draw(folder: Path, number: int) -> Path:
    folder.mkdir()
    for index in range(number):
        image = Image.fromarray(draw_scene("val", index, 0).image)
        image.save(folder / f"{index:05}.png", compress_level=1)
    return folder


def run(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds that a command takes, and the most memory (MiB) that its processes have together."""
    start, peak = time.perf_counter(), 0.0
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None:
        peak = max(peak, memory_of_session(process.pid))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.stderr.read().decode())
    return time.perf_counter() - start, peak


def memory_of_session(leader: int) -> float:
    """Resident memory, MiB, of the processes of a session; pages that several have count twice."""
    pages = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: state, parent, group, session, ...
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pages += int(fields[21]) if int(fields[3]) == leader else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
