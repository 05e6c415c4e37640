"""Writes six drawn images, their masks and the yaml of `zss_d2.data.spec.custom`, to try it.

coco.json beside it holds the same masks, but for the ground, as a labelling tool would export them.

zss toy-custom my_data
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from zss_d2.data.files.listing import is_foreign
from zss_d2.data.prepare.data_command import data_command
from zss_d2.errors import ZssError
from zss_d2.utils.command_line import Parser, whole
from zss_d2.utils.writing import is_temporary, remove_leftovers, write_atomic

SIZE = 96
COLOURS = ((110, 120, 90), (200, 60, 50), (60, 80, 200), (230, 200, 60))
DESCRIPTION = """\
name: yard
classes: [ground, disc, square, stripe]
unseen: [stripe]
ignore_label: 255
splits:
  train: {images: photos, masks: masks, list: train.txt}
  val: {images: photos, masks: masks, list: val.txt}
"""


def generate(root: Path, seed: int = 0) -> Path:
    """Write 4 training and 2 validation images; returns the yaml.

    Raises ZssError if ``root`` holds anything else.
    """
    unexpected = [path for path in root.glob("*") if not _is_ours(path)] if root.is_dir() else []
    if unexpected:
        raise ZssError(
            f"{root}: holds other files, such as {unexpected[0].name}; name a new folder"
        )
    remove_leftovers(root, recursive=True)
    ids = [f"yard_{index}" for index in range(6)]
    masks = {}
    for index, image_id in enumerate(ids):
        labels = draw_labels(np.random.default_rng([seed, index]))
        masks[image_id] = labels
        noise = np.random.default_rng([seed, index, 1]).normal(0, 12, (SIZE, SIZE, 3))
        image = np.asarray(COLOURS, float)[labels] + noise
        for folder, pixels in (("photos", image.clip(0, 255)), ("masks", labels)):
            picture = Image.fromarray(pixels.astype(np.uint8))
            save = functools.partial(picture.save, format="PNG")
            write_atomic(root / folder / f"{image_id}.png", save)
    texts = {"train.txt": ids[:4], "val.txt": ids[4:]}
    for name, listed in texts.items():
        _write_text(root / name, "".join(f"{image_id}\n" for image_id in listed))
    _write_text(root / "coco.json", json.dumps(coco_of(masks)) + "\n")
    _write_text(root / "yard.yaml", DESCRIPTION)
    return root / "yard.yaml"


def draw_labels(rng: np.random.Generator) -> np.ndarray:
    """Draw the (SIZE, SIZE) uint8 ids of a scene: a stripe, a disc and a square on the ground."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint8)
    top = rng.integers(0, SIZE - 16)
    labels[top : top + 16] = 3
    row, column = rng.integers(16, SIZE // 2, 2)
    labels[np.hypot(rows - row, columns - column) < 15] = 1
    row, column = rng.integers(SIZE // 2, SIZE - 24, 2)
    labels[row : row + 24, column : column + 24] = 2
    return labels


def coco_of(masks: Mapping[str, np.ndarray]) -> dict:
    """COCO's annotations of label maps (SIZE, SIZE), by image id, of all but the ground."""
    names = ("disc", "square", "stripe")
    images, annotations = [], []
    for image_id, (name, labels) in enumerate(masks.items(), 1):
        images.append({"id": image_id, "file_name": f"{name}.png", "width": SIZE, "height": SIZE})
        for label in range(1, len(names) + 1):
            inside = (labels == label).ravel(order="F")
            edges = np.flatnonzero(np.diff(inside, prepend=False)).tolist()
            counts = np.diff([0, *edges, inside.size]).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "segmentation": {"size": [SIZE, SIZE], "counts": counts},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _is_ours(path: Path) -> bool:
    ours = ("photos", "masks", "train.txt", "val.txt", "coco.json", "yard.yaml")
    return path.name in ours or is_temporary(path.name) or is_foreign(path.name)


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@data_command
def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--seed", type=whole(0), default=0, help="(%(default)s)")
    args = parser.parse_args(argv)
    print(f"{generate(args.root, args.seed)} describes 4 training and 2 validation images")
    return 0
