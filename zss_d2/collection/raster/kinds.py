"""Which images are rasters: those with a georeference, and those too large to be read at once."""

from __future__ import annotations

import os
from enum import Enum
from typing import NamedTuple

from PIL import Image

from zss_d2.collection.raster.reading import Raster, has_rasterio
from zss_d2.data.files.images import apply_pixel_limit, image_size
from zss_d2.errors import ZssError

# Tags of a TIFF that say where it lies: scale of pixels, tie points, transformation, keys.
_GEO_TAGS = {33550, 33922, 34264, 34735}
_TIFF_SUFFIXES = (".tif", ".tiff")


class Kind(Enum):
    """How an image is read and its labels are written."""

    PLAIN = "as images are"
    RASTER = "whole, by rasterio"
    LARGE = "by windows, by rasterio"


class Header(NamedTuple):
    """What is known of an image before it is read; its size is (H, W), px, None: unknown."""

    size: tuple[int, int] | None
    kind: Kind


def inspect(path: str, large: int) -> Header:
    """Look at the header of an image, whatever its state.

    Args:
        large: pixels above which an image is read by windows.
    """
    if not os.path.isfile(path):  # to open a pipe is to wait for somebody to write
        return Header(None, Kind.PLAIN)
    is_tiff = path.lower().endswith(_TIFF_SUFFIXES)
    try:
        apply_pixel_limit()
        with Image.open(path) as image:
            tags = image.tag_v2 if image.format == "TIFF" else ()
        kind = Kind.RASTER if is_tiff and _GEO_TAGS.intersection(tags) else Kind.PLAIN
        width, height = image_size(path) or (0, 0)
    except Image.DecompressionBombError:
        return Header(_raster_size(path), Kind.LARGE)
    except Exception:  # whatever the content of a file that is none leads to
        # Of TIFFs Pillow reads the usual kinds alone.
        size = _raster_size(path) if is_tiff else None
        kind, (height, width) = (Kind.RASTER, size) if size else (Kind.PLAIN, (0, 0))
    size = (height, width) if height and width else None
    return Header(size, Kind.LARGE if height * width > large else kind)


def _raster_size(path: str) -> tuple[int, int] | None:
    """(H, W) as rasterio sees it; None where it is not there, or cannot read the file either."""
    if not has_rasterio():
        return None
    try:
        with Raster(path, check=False) as raster:
            return raster.size
    except ZssError:
        return None
