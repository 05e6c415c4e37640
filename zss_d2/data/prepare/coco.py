"""Pixel maps of COCO-Stuff from its two annotation files: things painted over stuff.

Raw values are those of the distributed PNG maps: category id - 1, and 255 where nothing is painted.
The sources do not say how the distributed maps resolve overlaps; here stuff comes first, then
crowd regions, then single things from the largest to the smallest, so that nothing small is lost.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from zss_d2.data.files.lists import read_text
from zss_d2.data.prepare.convert import Pair
from zss_d2.errors import ZssError

UNLABELLED = 255
# The category of stuff_*.json for "some thing is here": it has no place of its own in the maps.
OTHER_ID = 183

Layer = tuple[int, Any]
"""A raw value and the COCO segmentation (polygons or run lengths) that it covers."""


def paint(height: int, width: int, layers: Sequence[Layer]) -> np.ndarray:
    """Paint layers, the last on top: (height, width) uint8 raw values."""
    raw = np.full((height, width), UNLABELLED, np.uint8)
    for value, segmentation in layers:
        raw[decode(segmentation, height, width)] = value
    return raw


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO polygons, compressed or uncompressed run lengths -> (height, width) bool.

    Raises ValueError for anything else.
    """
    if isinstance(segmentation, list):
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(f"neither polygons nor run lengths: {segmentation!r:.40}")
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, height, width)
    elif isinstance(segmentation["counts"], (str, bytes)):
        encoded = segmentation
    else:
        raise ValueError(f"run lengths are {segmentation['counts']!r:.40}")
    return coco_mask.decode(encoded) > 0


def order_layers(stuff: Sequence[dict], things: Sequence[dict]) -> tuple[Layer, ...]:
    """Order the annotations of an image, bottom first, as this module's head says."""
    crowds = [a for a in things if a.get("iscrowd")]
    single = sorted((a for a in things if not a.get("iscrowd")), key=lambda a: -a["area"])
    return tuple(
        (annotation["category_id"] - 1, annotation["segmentation"])
        for annotation in (*stuff, *crowds, *single)
        if annotation["category_id"] != OTHER_ID
    )


def json_pairs(stuff_file: Path, instances_file: Path, images_folder: Path) -> list[Pair]:
    """Pair every image of the two annotation files with the map to be painted from them.

    Raises:
        ZssError: a file is missing or no COCO annotation file, or they describe other images.
    """
    images, stuff = _read(stuff_file)
    thing_images, things = _read(instances_file)
    # Images without a single thing may lack in instances_*.json, stuff is everywhere.
    unexpected = sorted(thing_images.keys() - images.keys())
    if unexpected:
        raise ZssError(
            f"{instances_file}: image {unexpected[0]} and {len(unexpected) - 1} more are not in "
            f"{stuff_file}; give the two files of the same split"
        )
    pairs = []
    for image_id, image in images.items():
        name = _file_name(image, stuff_file)
        try:
            layers = order_layers(stuff[image_id], things[image_id])
            height, width = image["height"], image["width"]
        except (KeyError, TypeError) as error:
            raise ZssError(
                f"{stuff_file} or {instances_file}: {name} lacks {error}; fetch the annotations "
                "again"
            ) from None
        _check_layers(layers, stuff_file, name)
        read = functools.partial(_paint_pair, height=height, width=width, layers=layers)
        pairs.append(
            Pair(Path(name).stem, images_folder / name, stuff_file, read, (instances_file,))
        )
    return pairs


def _file_name(image: dict, path: Path) -> str:
    """Return the name of an image's file; raises ZssError if that may lead out of the folder."""
    name = image.get("file_name")
    plain = isinstance(name, str) and name not in ("", "..") and Path(name).name == name
    if not plain or "\\" in name or "\0" in name:
        raise ZssError(
            f"{path}: image {image['id']} has the file_name {name!r:.60}, which is no name of a "
            "file in one folder; fetch the annotations again"
        )
    return name


def _paint_pair(path: Path, height: int, width: int, layers: Sequence[Layer]) -> np.ndarray:
    try:
        return paint(height, width, layers)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ZssError(
            f"{path}: a segmentation cannot be decoded ({error}); fetch the file again"
        ) from None


def _check_layers(layers: Sequence[Layer], path: Path, file_name: str) -> None:
    for value, _ in layers:
        if not 0 <= value < OTHER_ID - 1:
            raise ZssError(
                f"{path}: {file_name} has the category {value + 1}, outside 1..{OTHER_ID}; "
                "fetch the annotations again"
            )


def _read(path: Path) -> tuple[dict[int, dict], dict[int, list[dict]]]:
    """Return {image id: image} and {image id: annotations} of a COCO annotation file."""
    try:
        data = json.loads(read_text(path))
        images = {image["id"]: image for image in data["images"]}
        annotations = defaultdict(list)
        for annotation in data["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
    except ValueError as error:
        raise ZssError(f"{path}: is no JSON ({error}); fetch the file again") from None
    except (KeyError, TypeError) as error:
        raise ZssError(
            f"{path}: no COCO annotation file (missing {error}); give stuff_*.json and "
            "instances_*.json"
        ) from None
    return images, annotations
