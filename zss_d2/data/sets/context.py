"""Prepare PASCAL Context for zss_context59_{train,val} or zss_context60_{train,val}."""

from __future__ import annotations

import argparse
from pathlib import Path

from zss_d2.data.files.images import read_mask, read_matlab_mask, require_folder
from zss_d2.data.files.listing import files_by_id
from zss_d2.data.labels import build_lut
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

BENCHMARKS = ("context59", "context60")
ORIGINAL = "mat"
ENCODINGS = (ORIGINAL, "png_alphabetical", "png_voc_first")


def context_pairs(args: argparse.Namespace, split: str) -> list[Pair]:
    """Pair what the list of ``split`` names; raises ZssError if a folder or the list is missing."""
    images = args.voc_root / "JPEGImages"
    require_folder(images, "let --voc-root name the VOC2010 folder (see datasets/README.md)")
    require_folder(args.masks, "let --masks name the folder of .mat or .png masks")
    ids = read_id_list(getattr(args, f"{split}_list"), images)
    suffix, read = (".mat", read_matlab_mask) if args.encoding == ORIGINAL else (".png", read_mask)
    return [Pair(i, images / f"{i}.jpg", args.masks / f"{i}{suffix}", read) for i in ids]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    choice = benchmark_choice(
        BENCHMARKS, "context59: background is ignored; context60: it is a seen class"
    )
    benchmark = choice.parse_known_args(argv)[0].benchmark
    parser = Parser(
        "Read the images of VOC 2010, the masks and lists of PASCAL Context, and write "
        "masks with train ids (void: 255) beside links to the images. The originals are not "
        "changed. Running it again continues where it stopped. Exit status 2 and one line per bad "
        "file if something is wrong.",
        parents=[choice],
        allow_abbrev=False,
        formatter_class=argparse.HelpFormatter,
    )
    root = datasets_root() / "VOC2010"
    parser.add_argument(
        "--voc-root",
        type=Path,
        default=root,
        metavar="DIR",
        help="folder with JPEGImages; only read (default: $DETECTRON2_DATASETS/VOC2010, now "
        "%(default)s)",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of masks (default: trainval in --voc-root)",
    )
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        help="mat: 459 classes, .mat files as published; png_alphabetical: 0 background, 1..59 in "
        "alphabetical order; png_voc_first: 0 background, 1..59 in the order of 59_labels.txt, "
        "VOC's classes first. The two PNG orders cannot be told apart by their values, so PNG "
        "masks need this option (default: mat)",
    )
    for split in ("train", "val"):
        parser.add_argument(
            f"--{split}-list",
            type=Path,
            metavar="FILE",
            help=f"ids of zss_{benchmark}_{split}, one per line "
            f"(default: ImageSets/SegmentationContext/{split}.txt in --voc-root)",
        )
    add_common_arguments(parser, load_benchmark(benchmark))
    args = parser.parse_args(argv)
    args.custom_lists = bool(args.train_list or args.val_list)
    args.masks = args.masks or args.voc_root / "trainval"
    lists = args.voc_root / "ImageSets" / "SegmentationContext"
    args.train_list = args.train_list or lists / "train.txt"
    args.val_list = args.val_list or lists / "val.txt"
    return args


def choose_encoding(masks: Path, encoding: str | None) -> str:
    """Return the encoding to read; raises ZssError where PNG masks come without being told."""
    if encoding:
        return encoding
    if masks.is_dir() and not files_by_id(masks, (".mat",)) and files_by_id(masks, (".png",)):
        raise ZssError(
            f"{masks}: holds .png masks, whose class order cannot be seen; pass --encoding "
            "png_alphabetical (mmsegmentation's converter) or png_voc_first (59_labels.txt)"
        )
    return ORIGINAL


@data_command
def run(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    benchmark = load_benchmark(args.benchmark)
    args.encoding = choose_encoding(args.masks, args.encoding)
    lut = None if args.encoding == ORIGINAL else build_lut(benchmark.encodings[args.encoding])

    def list_pairs() -> dict[str, list[Pair]]:
        return {split: context_pairs(args, split) for split in benchmark.splits}

    return main(benchmark, args, list_pairs, custom_lists=args.custom_lists, lut=lut)
