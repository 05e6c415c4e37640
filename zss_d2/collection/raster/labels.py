"""Labels of rasters: GeoTIFFs in the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zss_d2.collection.raster.reading import import_rasterio
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words
from zss_d2.utils.writing import write_atomic

# Side of the blocks that a file is compressed in, px.
BLOCK = 512
SUFFIX = ".tif"


def write_labels(
    path: Path, place: dict[str, Any], nodata: bool, words: Words, fill: Callable[[Any], None]
) -> None:
    """Write a label map of a raster, atomically: compressed, in blocks, with a colour table.

    Args:
        place: of `Raster.place`.
        nodata: note the id of pixels without data.
        fill: gets the open file, a rasterio dataset, and writes band 1.

    Raises:
        WriteError: the disk is full, or anything else is in the way.
    """

    def write(temporary: Path) -> None:
        with _created(temporary, place, nodata, words) as dataset:
            fill(dataset)

    write_atomic(path, write, flush=False)


@contextmanager
def _created(path: Path, place: dict[str, Any], nodata: bool, words: Words) -> Iterator[Any]:
    rasterio = import_rasterio(str(path))
    options = {"compress": "deflate", "bigtiff": "if_safer", "driver": "GTiff", "count": 1}
    if min(place["height"], place["width"]) >= BLOCK:
        options |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    if nodata:
        options["nodata"] = words.nodata_id
    try:
        with rasterio.open(path, "w", dtype=words.dtype.name, **options, **place) as dataset:
            if words.dtype == np.uint8:
                table = enumerate(label_colours(words).tolist())
                dataset.write_colormap(1, {label: (*colour, 255) for label, colour in table})
            yield dataset
    except rasterio.errors.RasterioError as error:
        # Of a full disk as well, which it does not tell from other faults.
        raise OSError(f"rasterio: {error}") from error
