"""Images of any kind that users have -> (H, W, 3) uint8, RGB, upright."""

from __future__ import annotations

from io import BytesIO
from os import PathLike, fspath
from os.path import expanduser
from typing import IO

import numpy as np
from PIL import Image

from zss_d2.data.files.images import decode_image
from zss_d2.errors import ZssError

ImageSource = str | PathLike[str] | IO[bytes] | Image.Image | np.ndarray


def load_image(source: ImageSource, name: str = "the image") -> np.ndarray:
    """Decode an image.

    Files and Pillow's images are turned upright as their EXIF data says; grey is repeated; 16 bits,
    0..65535, become 0..255; transparency is dropped.

    Args:
        source: path; binary file; Pillow's image; or array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), grey or RGB, of uint8, uint16 or of floating point in 0..1.
        name: what errors call it, where it is no path.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ZssError: the file is missing or damaged; a shape, type or range that is none of these.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return decode_image(source, name)
    if isinstance(source, (str, PathLike)):
        path = expanduser(fspath(source))
        if isinstance(path, str) and "://" in path:
            raise ZssError(f"{path}: addresses are not fetched; give a file")
        return decode_image(path, str(path))
    if hasattr(source, "read"):
        return decode_image(BytesIO(_bytes_of(source, name)), name)
    raise ZssError(
        f"{name} is a {type(source).__name__}; give a path, a binary file, a Pillow image or a "
        "NumPy array (H, W, 3)"
    )


def _bytes_of(file: IO[bytes], name: str) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # of a closed file, or a text that is none
        raise ZssError(f"{name} is a file that cannot be read: {error}; open it anew") from None
    if not isinstance(content, bytes):
        raise ZssError(f"{name} is a file of text; open it as a binary one, mode 'rb'")
    return content


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ZssError(
            f"{name} is an array of shape {array.shape}; give (H, W), or (H, W, C) with 1, 3 or 4 "
            "channels"
        )
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ZssError(
                f"{name} is an array of {array.dtype} from {array.min():g} to {array.max():g}; "
                "floating point stands for 0 to 1, so divide by the largest value there can be"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ZssError(
            f"{name} is an array of {array.dtype}; give uint8, uint16 or floating point in 0 to 1"
        )
    colours = array.reshape(*array.shape[:2], channels)[..., : min(channels, 3)]
    return np.ascontiguousarray(np.broadcast_to(colours, (*array.shape[:2], 3)))
