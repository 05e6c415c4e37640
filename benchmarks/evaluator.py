#!/usr/bin/env python
"""Our evaluator against Detectron2's SemSegEvaluator on the same scores, in one run.

python benchmarks/evaluator.py --classes 171 --size 512 --repeats 9 --images 5000

"With shapes" is what TEST.FRAGMENTATION adds: a ground truth of squares, a prediction that is as
smooth as a network's is.

Detectron2's is the one that is installed; the stand-in's computes less than upstream's.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import detectron2
import numpy as np
import torch
from bench.timing import in_turn, peak_mib, spread
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from zss_d2.evaluation import ZeroShotSemSegEvaluator
from zss_d2.modeling.inference import argmax_labels

NAME = "benchmark_evaluator"
BLOCK_PX = 16


@contextmanager
def one_image(folder: Path, num_classes: int, size: int) -> Iterator[tuple[dict, torch.Tensor]]:
    """A registered data set of one image: its record and scores (K, size, size) for it."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, num_classes, (size // BLOCK_PX + 1,) * 2)
    truth = np.kron(blocks, np.ones((BLOCK_PX, BLOCK_PX), int))[:size, :size].astype(np.uint8)
    truth[:, :BLOCK_PX] = 255
    mask = folder / "mask.png"
    Image.fromarray(truth).save(mask)
    record = {"file_name": "image.jpg", "sem_seg_file_name": str(mask)}
    names = [f"class {index}" for index in range(num_classes)]
    DatasetCatalog.register(NAME, lambda: [record])
    MetadataCatalog.get(NAME).set(stuff_classes=names, unseen_classes=names[:15], ignore_label=255)
    # Smooth like a network's: a coarse grid, enlarged.
    coarse = torch.randn(1, num_classes, size // BLOCK_PX, size // BLOCK_PX)
    scores = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0].sigmoid()
    yield record, scores
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--size", type=int, default=512, help="side of the image, px")
    parser.add_argument("--repeats", type=int, default=9, help="measurements, in turn")
    parser.add_argument("--images", type=int, default=200, help="evaluated to look at the memory")
    args = parser.parse_args()
    logging.disable(logging.WARNING)

    with (
        tempfile.TemporaryDirectory() as folder,
        one_image(Path(folder), args.classes, args.size) as (record, scores),
    ):
        theirs, ours = SemSegEvaluator(NAME), ZeroShotSemSegEvaluator(NAME)
        with_shapes = ZeroShotSemSegEvaluator(NAME, fragmentation=True)
        theirs.reset()
        output = [{"sem_seg": scores}]
        calls = {
            "Detectron2's process": lambda: theirs.process([record], output),
            "  of which torch.argmax": lambda: scores.argmax(dim=0),
            "our process": lambda: ours.process([record], output),
            "  of which our argmax": lambda: argmax_labels(scores),
            "  with shapes": lambda: with_shapes.process([record], output),
        }
        rounds = in_turn(calls, args.repeats + 1)[1:]  # the first round warms up
        columns = {name: [1e3 * times[name] for times in rounds] for name in calls}
        print(
            f"{args.classes} classes, {args.size} x {args.size} px, fp32, CPU, "
            f"{torch.get_num_threads()} threads, Detectron2 {detectron2.__version__}"
        )
        for name, column in columns.items():
            print(f"{name:24} {spread(column, 1)} ms")
        medians = map(statistics.median, columns.values())
        whole, whole_argmax, mine, my_argmax, shaped = medians
        rest = (whole - whole_argmax) / max(mine - my_argmax, 1e-3)
        print(f"whole call {whole / mine:.1f}x as fast, all but the argmax {rest:.1f}x")
        print(f"shapes: {shaped - mine:.1f} ms per image more, {shaped / mine:.2f}x our process")

        wrong = int((argmax_labels(scores).long() != scores.argmax(dim=0)).sum())
        print(f"pixels with another label than torch.argmax: {wrong}")
        ours.reset()
        marks = {round(args.images * share / 5) for share in range(1, 6)}
        for done in range(1, args.images + 1):
            ours.process([record], output)
            if done in marks:
                print(f"peak memory after {done:5} images {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
