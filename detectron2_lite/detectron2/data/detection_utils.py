"""Reading images."""

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps


class SizeMismatchError(ValueError):
    """An image does not have the size that its record states."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file, upright as its EXIF data say, as an array (H, W, C) or (H, W).

    ``format`` is a PIL mode, "BGR", or None for the mode that the image has; "L" gives C = 1.
    """
    with PathManager.open(file_name, "rb") as file:
        image = ImageOps.exif_transpose(Image.open(file))
        if format == "BGR":
            return np.asarray(image.convert("RGB"))[:, :, ::-1]
        array = np.asarray(image if format is None else image.convert(format))
    return array[:, :, None] if format == "L" else array


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Compare the image (H, W, ...) with the record's "height" and "width", or fill these in.

    Raises SizeMismatchError if they differ.
    """
    height, width = image.shape[:2]
    stated = (dataset_dict.setdefault("height", height), dataset_dict.setdefault("width", width))
    if stated != (height, width):
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'an image')} is {height} x {width} (H x W), but its "
            f"record says {stated[0]} x {stated[1]}"
        )
