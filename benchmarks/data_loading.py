#!/usr/bin/env python
"""Images per second of our mapper and of Detectron2's, and what the records of COCO-Stuff cost.

python benchmarks/data_loading.py --images 32 --rounds 5
python benchmarks/data_loading.py --photos VOC2012/JPEGImages VOC2012/SegmentationClassAug

Needs no data: images of COCO's size are generated, unless folders of photos and masks (values 0
to 170 and 255) are given. Runs on one core.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import detectron2.data.transforms as T
import numpy as np
import torch
from bench.photos import generate
from bench.timing import spread
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetFromList

import zss_d2  # noqa: F401  registers data sets
from zss_d2.config.defaults import add_zss_config
from zss_d2.data.files.listing import load_records
from zss_d2.data.pipeline.augmentation import RandomColour, turn_hue
from zss_d2.data.pipeline.mapper import IGNORED_WHEN_CROPPING, ZeroShotMapper
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.locations import prepared_location

try:
    from detectron2.data import DatasetMapper
except ImportError:
    DatasetMapper = None

COCO = load_benchmark("coco_stuff")


def records_of(pairs: Sequence[tuple[Path, Path]]) -> list[dict]:
    """Records of images and masks of COCO-Stuff's ids."""
    return [
        {
            "file_name": str(image),
            "sem_seg_file_name": str(mask),
            "image_id": image.stem,
            "dataset_name": "zss_coco_stuff_train",
        }
        for image, mask in pairs
    ]


def photos(images: Path, masks: Path, number: int) -> list[tuple[Path, Path]]:
    """The first pairs of a JPEG image and a PNG mask of the same name."""
    both = [(images / f"{mask.stem}.jpg", mask) for mask in sorted(masks.glob("*.png"))]
    return [pair for pair in both if pair[0].exists()][:number]


def configuration() -> CfgNode:
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = [512, 512]
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    return cfg


def detectron2_mapper(cfg: CfgNode) -> Callable[[dict], dict]:
    """Detectron2's mapper with its own counterparts of our augmentations; hue, which it lacks, is
    ours."""
    (long_edge, short_edge), (low, high) = cfg.INPUT.RESIZE_BASE, cfg.INPUT.SCALE_RANGE
    crop = cfg.INPUT.CROP
    augmentations = [
        T.ResizeScale(low, high, short_edge, long_edge),
        T.RandomCrop_CategoryAreaConstraint(
            "absolute", crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, IGNORED_WHEN_CROPPING
        ),
        T.RandomFlip(),
        *(
            T.RandomApply(colour, prob=0.5)
            for colour in (
                T.RandomBrightness(0.75, 1.25),
                T.RandomContrast(0.5, 1.5),
                T.RandomSaturation(0.5, 1.5),
                RandomColour(turn_hue, -36, 36),
            )
        ),
    ]
    return DatasetMapper(is_train=True, augmentations=augmentations, image_format="RGB")


def images_per_second(mapper: Callable[[dict], dict], records: Sequence[dict]) -> float:
    np.random.seed(0)
    start = time.perf_counter()
    for record in records:
        mapper(dict(record))
    return len(records) / (time.perf_counter() - start)


def compare(records: list[dict], rounds: int) -> None:
    cfg = configuration()
    ours = ZeroShotMapper(cfg, is_train=True)
    mappers = {"ours": ours}
    if DatasetMapper is None:
        print("this detectron2 has no DatasetMapper: only our own figures follow")
    else:
        mappers["Detectron2"] = detectron2_mapper(cfg)
    speeds: dict[str, list[float]] = {name: [] for name in mappers}
    for mapper in mappers.values():
        images_per_second(mapper, records[:4])
    for _ in range(rounds):
        for name, mapper in mappers.items():
            speeds[name].append(images_per_second(mapper, records))
    for name, values in speeds.items():
        print(f"{name}: {spread(values, 1)} images/s per worker")
    if "Detectron2" in speeds:
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["Detectron2"], strict=True)]
        print(f"ratio ours / Detectron2 {spread(ratios)} over {rounds} pairs")
    for name, mapper in mappers.items():
        print(f"what dominates, {name}: {dominant(mapper, records)}")


def dominant(mapper: Callable[[dict], dict], records: Sequence[dict]) -> str:
    """Name the stages and their share of the time, without what they call in each other."""
    profile = cProfile.Profile()
    profile.runcall(images_per_second, mapper, records)
    stages = {
        "read_image": "JPEG decoding",
        "read_mask": "PNG decoding",
        "check_labels": "value check",
        "remap": "raw values to train ids",
        "hide_unseen": "hiding unseen",
        "get_transform": "choosing (crop: counting classes)",
        "resized_window": "resizing and cropping the image",
        "transform": "applying (flip, colours; Detectron2: resize, crop)",
    }
    shares: dict[str, float] = {}
    stats = pstats.Stats(profile)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        if function in stages and ("zss_d2" in file or "detectron2" in file):
            shares[stages[function]] = shares.get(stages[function], 0.0) + cumulative
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share / stats.total_tt:.0%}" for name, share in ranked)


def private_mib() -> float:
    """Memory in MiB that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def growth_of_worker(records: Sequence[dict]) -> float:
    """Private memory in MiB that a forked process gains by reading every record once."""

    def work(connection) -> None:
        before = private_mib()
        for index in range(len(records)):
            dict(records[index])
        connection.send(private_mib() - before)

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(there,))
    process.start()
    growth = here.recv()
    process.join()
    return growth


def register_full_size(folder: Path) -> None:
    """List the records of two splits of COCO's size; the files are empty, none is opened."""
    for split in COCO.splits.values():
        location = prepared_location(COCO, split, folder)
        for target, suffix in ((location.images, "jpg"), (location.masks, "png")):
            target.mkdir(parents=True)
            for index in range(split.expected_images):
                os.close(os.open(target / f"{index:012d}.{suffix}", os.O_CREAT | os.O_WRONLY))
    before, start = private_mib(), time.perf_counter()
    records = []
    for name, split in COCO.splits.items():
        records += load_records(prepared_location(COCO, split, folder), f"zss_coco_stuff_{name}")
    seconds, listed = time.perf_counter() - start, private_mib()
    packed = DatasetFromList(records)
    with_packed = private_mib()
    print(
        f"{len(records)} records: listed in {seconds:.2f} s, {listed - before:.0f} MiB as a list, "
        f"{with_packed - listed:.0f} MiB more packed"
    )
    print(
        f"a worker that reads all of them gains {growth_of_worker(records):.0f} MiB from the list, "
        f"{growth_of_worker(packed):.0f} MiB from the packed records"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32, help="images per round")
    parser.add_argument("--rounds", type=int, default=5, help="paired measurements")
    parser.add_argument(
        "--photos", nargs=2, type=Path, metavar=("IMAGES", "MASKS"), help="folders to read instead"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.photos:
            pairs = photos(*args.photos, args.images)
        else:
            pairs = generate(root / "images", root / "masks", args.images, len(COCO.classes))
        source = args.photos[0] if args.photos else "generated, 640x480 px"
        print(f"{len(pairs)} images ({source}), crops of 512 px, 1 core")
        compare(records_of(pairs), args.rounds)
        register_full_size(root / "full")


if __name__ == "__main__":
    main()
