"""Reading images."""

from __future__ import annotations

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps


class SizeMismatchError(ValueError):
    """An image does not have the size that its record states."""


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """Array (H, W, C), or (H, W) for a mode without channels and ``format=None``.

    ``format`` is a PIL mode, "BGR", or None for the mode that the image has; "L" gives C = 1.
    """
    if format == "BGR":
        return np.asarray(image.convert("RGB"))[:, :, ::-1]
    array = np.asarray(image if format is None else image.convert(format))
    return array[:, :, None] if format == "L" else array


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file, upright as its EXIF data say; see ``convert_PIL_to_numpy``."""
    with PathManager.open(file_name, "rb") as file:
        image = Image.open(file)
        return convert_PIL_to_numpy(ImageOps.exif_transpose(image), format)


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Compare the image (H, W, ...) with the record's "height" and "width", or fill these in.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    stated = (dataset_dict.setdefault("height", height), dataset_dict.setdefault("width", width))
    if stated != (height, width):
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'an image')} is {height} x {width} (H x W), but its "
            f"record says {stated[0]} x {stated[1]}"
        )
