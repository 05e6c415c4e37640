"""Small trees of ADE20K and Cityscapes, with the names, folders and values that were released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from zss_d2.data.synthetic.toy_voc import class_colour

CITIES = {"train": ("aachen", "ulm"), "val": ("lindau", "frankfurt")}


def make_ade20k(root: Path, train: int = 3, val: int = 4) -> Path:
    """Write ADEChallengeData2016 below ``root``: 0 other, 1..150 classes. Returns its folder."""
    folder = root / "ADEChallengeData2016"
    for part, name, count in (("training", "train", train), ("validation", "val", val)):
        for index in range(count):
            mask = squares(np.arange(19 * index, 19 * index + 16) % 151)
            file = f"{part}/ADE_{name}_{index + 1:08d}"
            _save(folder / f"images/{file}.jpg", picture(mask))
            _save(folder / f"annotations/{file}.png", mask)
    (folder / "sceneCategories.txt").write_text("ADE_val_00000001 street\n")
    return folder


def make_cityscapes(root: Path, train: int = 2, val: int = 2) -> Path:
    """Write cityscapes below ``root``, so many images a city. Returns its folder.

    Masks hold 0..33; beside them lie the other files of the release.
    """
    folder = root / "cityscapes"
    for part, count in (("train", train), ("val", val)):
        for city in CITIES[part]:
            for index in range(count):
                mask = squares(np.arange(16 * index, 16 * index + 16 + 2 * index) % 34)
                image_id = f"{part}/{city}/{city}_{index:06d}_000019"
                truth = folder / "gtFine" / image_id
                _save(folder / f"leftImg8bit/{image_id}_leftImg8bit.png", picture(mask))
                _save(Path(f"{truth}_gtFine_labelIds.png"), mask)
                _save(Path(f"{truth}_gtFine_instanceIds.png"), mask.astype(np.uint16) * 1000)
                _save(Path(f"{truth}_gtFine_color.png"), picture(mask))
                Path(f"{truth}_gtFine_polygons.json").write_text("{}")
    return folder


def squares(values: np.ndarray) -> np.ndarray:
    """A mask (64, 128) of upright stripes with these values."""
    return np.repeat(values[np.arange(128) * len(values) // 128][None], 64, axis=0).astype(np.uint8)


def picture(mask: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) that shows the values of a mask as colours."""
    return np.array([class_colour(value) for value in range(256)]).astype(np.uint8)[mask]


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
