"""Prepare PASCAL VOC 2012 (with the SBD masks) for zss_voc_{train,val} or zss_voc21_{train,val}."""

from __future__ import annotations

import argparse
from pathlib import Path

from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.workflow import (
    Pair,
    add_common_arguments,
    benchmark_choice,
    main,
    read_id_list,
)
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.locations import datasets_root
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser

BENCHMARKS = ("voc", "voc21")
DEFAULT_LISTS = {"train": "train_aug", "val": "val"}


def voc_pairs(root: Path, list_name: str, masks: str) -> list[Pair]:
    """Pair what a list names; raises ZssError if a folder or the list is missing."""
    for folder in ("JPEGImages", masks, "ImageSets/Segmentation"):
        if not (root / folder).is_dir():
            raise ZssError(
                f"{root / folder}: no such folder; let --voc-root name the VOC2012 folder, or set "
                "DETECTRON2_DATASETS to the folder that holds it (see datasets/README.md)"
            )
    images = root / "JPEGImages"
    file = f"{list_name.removesuffix('.txt')}.txt"
    ids = read_id_list(root / "ImageSets" / "Segmentation" / file, images)
    return [Pair(i, images / f"{i}.jpg", root / masks / f"{i}.png") for i in ids]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    choice = benchmark_choice(BENCHMARKS, "voc: background is ignored; voc21: it is class 0")
    benchmark = choice.parse_known_args(argv)[0].benchmark
    parser = Parser(
        "Read the images, masks and lists of VOC 2012, and write masks with train ids (void: 255) "
        "beside links to the images. The originals are not changed. Running it again continues "
        "where it stopped. Exit status 2 and one line per bad file if something is wrong.",
        parents=[choice],
        allow_abbrev=False,
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "--voc-root",
        type=Path,
        default=datasets_root() / "VOC2012",
        metavar="DIR",
        help="folder with JPEGImages, ImageSets/Segmentation and the masks; only read "
        "(default: $DETECTRON2_DATASETS/VOC2012, now %(default)s)",
    )
    for split, default in DEFAULT_LISTS.items():
        parser.add_argument(
            f"--{split}-list",
            default=default,
            metavar="NAME",
            help=f"list in ImageSets/Segmentation for zss_{benchmark}_{split} "
            "(default: %(default)s)",
        )
    parser.add_argument(
        "--masks",
        default="SegmentationClassAug",
        metavar="FOLDER",
        help="mask folder in --voc-root (default: %(default)s)",
    )
    add_common_arguments(parser, load_benchmark(benchmark))
    return parser.parse_args(argv)


@data_command
def run(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    lists = {"train": args.train_list, "val": args.val_list}

    def list_pairs() -> dict[str, list[Pair]]:
        return {split: voc_pairs(args.voc_root, name, args.masks) for split, name in lists.items()}

    benchmark = load_benchmark(args.benchmark)
    return main(benchmark, args, list_pairs, custom_lists=lists != DEFAULT_LISTS)
