"""Prepare COCO-Stuff 164k for zss_coco_stuff_train and zss_coco_stuff_val."""

from __future__ import annotations

import argparse
from pathlib import Path

from zss_d2.data.files.images import require_folder
from zss_d2.data.files.listing import IMAGE_SUFFIXES, files_by_id
from zss_d2.data.prepare.coco import json_pairs
from zss_d2.data.prepare.data_command import data_command
from zss_d2.data.prepare.workflow import Pair, add_common_arguments, main
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.locations import datasets_root
from zss_d2.utils.command_line import Parser

# mmsegmentation's converter leaves its own files among the maps.
FOREIGN_SUFFIX = "_labelTrainIds"


def coco_pairs(root: Path, folder: str, masks: str) -> list[Pair]:
    """Pair the images of ``folder`` (train2017, ...) with PNG maps or annotations.

    Raises ZssError if a folder or an annotation file is missing.
    """
    images, maps = root / folder, root / "stuffthingmaps" / folder
    require_folder(
        images,
        "let --coco-root name the COCO folder, or set DETECTRON2_DATASETS to the folder that "
        "holds coco (see datasets/README.md)",
    )
    if masks == "json" or (masks == "auto" and not maps.exists()):
        print(f"{folder}: masks from the annotation files, no PNG maps")
        annotations = root / "annotations"
        return json_pairs(
            annotations / f"stuff_{folder}.json", annotations / f"instances_{folder}.json", images
        )
    require_folder(maps, "fetch stuffthingmaps_trainval2017.zip, or pass --masks json")
    masks_by_id = files_by_id(maps, (".png",))
    ids = files_by_id(images, IMAGE_SUFFIXES).keys() | {
        image_id for image_id in masks_by_id if not image_id.endswith(FOREIGN_SUFFIX)
    }
    return [Pair(i, images / f"{i}.jpg", maps / f"{i}.png") for i in sorted(ids)]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        "Read the images of COCO 2017 and the PNG maps of COCO-Stuff, or, where these "
        "are missing, its annotation files, and write masks with the ids 0..170 (unlabelled: 255) "
        "beside links to the images. The originals are not changed. Running it again continues "
        "where it stopped. Exit status 2 and one line per bad file if something is wrong.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "--coco-root",
        type=Path,
        default=datasets_root() / "coco",
        metavar="DIR",
        help="folder with train2017, val2017 and stuffthingmaps or annotations; only read "
        "(default: $DETECTRON2_DATASETS/coco, now %(default)s)",
    )
    parser.add_argument(
        "--masks",
        choices=("auto", "maps", "json"),
        default="auto",
        help="maps: stuffthingmaps/FOLDER/*.png; json: annotations/{stuff,instances}_FOLDER.json; "
        "auto: maps if the folder is there (default)",
    )
    add_common_arguments(parser, load_benchmark("coco_stuff"))
    return parser.parse_args(argv)


@data_command
def run(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    benchmark = load_benchmark("coco_stuff")

    def list_pairs() -> dict[str, list[Pair]]:
        return {
            name: coco_pairs(args.coco_root, split.folder, args.masks)
            for name, split in benchmark.splits.items()
        }

    return main(benchmark, args, list_pairs)
