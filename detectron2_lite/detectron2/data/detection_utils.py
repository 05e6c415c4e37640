"""Reading images."""

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps


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
