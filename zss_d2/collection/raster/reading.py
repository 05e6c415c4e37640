"""Rasters: GeoTIFF and other large images, read by windows with rasterio."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from zss_d2.errors import ZssError

# What blocks of files may take that are kept for the next window, MiB.
_CACHE_MIB = "128"
# Kinds of files that are read. Others lead to further files, or addresses.
_DRIVERS = ("GTiff", "PNG", "JPEG", "WEBP", "BMP")


def has_rasterio() -> bool:
    """Whether ``zss_d2[geo]`` is installed."""
    return find_spec("rasterio") is not None


def import_rasterio(path: str) -> ModuleType:
    """The library, whose cache is bounded; raises ZssError where it is missing.

    Args:
        path: of the image that needs it.
    """
    if not has_rasterio():
        raise ZssError(
            f"{path}: an image that has a georeference, or is read by windows, needs rasterio; "
            "pip install 'zss_d2[geo]', or give a plain copy, of fewer pixels than --large"
        )
    return _library()


@functools.cache
def _library() -> ModuleType:
    # By default it takes a part of the machine's memory.
    os.environ.setdefault("GDAL_CACHEMAX", _CACHE_MIB)
    # It takes half a PNG for a whole one, with anything for what is missing.
    os.environ["GDAL_PNG_WHOLE_IMAGE_OPTIM"] = "NO"
    import rasterio
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    # That a large image lies nowhere on earth, or has two ways to say what is no data, is no news.
    for category in (NotGeoreferencedWarning, NodataShadowWarning):
        warnings.simplefilter("ignore", category)
    return rasterio


class Raster:
    """An open raster, a `zss_d2.predict.tiles.TileSource`. For one thread at a time.

    Values of 16 bit, 0..65535, become 0..255, as those of other images do. Of more than three bands
    the first three count.

    Raises:
        ZssError: rasterio is missing; the file is damaged, or holds other than 8 or 16 bit.
    """

    def __init__(self, path: str, *, check: bool = True):
        """
        Args:
            check: raise for values and orientations that cannot be read as they were meant.
        """
        self.path = path
        rasterio = import_rasterio(path)
        with self._readable():
            self.dataset = rasterio.open(path)
        try:
            self._check_kind()
            if check:
                self._check()
        except ZssError:
            self.close()
            raise

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.dataset.close()

    @property
    def size(self) -> tuple[int, int]:
        return self.dataset.height, self.dataset.width

    @cached_property
    def bands(self) -> list[int]:
        """Numbers of the bands that are red, green and blue, or the only one."""
        return [1, 2, 3] if self.dataset.count >= 3 else [1]

    @cached_property
    def left_out(self) -> int:
        """How many bands are not looked at."""
        from rasterio.enums import ColorInterp

        alphas = self.dataset.colorinterp.count(ColorInterp.alpha)
        return self.dataset.count - len(self.bands) - alphas

    @cached_property
    def has_nodata(self) -> bool:
        """Whether there may be pixels without data: by a value, a mask or transparency."""
        from rasterio.enums import MaskFlags

        return any(MaskFlags.all_valid not in flags for flags in self.dataset.mask_flag_enums)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Pixels (h, w, 3) uint8, RGB."""
        with self._readable():
            return self._rgb(self.dataset.read(self.bands, window=_window(rows, columns)))

    def valid(self, rows: slice, columns: slice) -> np.ndarray | None:
        """Where there is data: (h, w) bool, None for everywhere."""
        if not self.has_nodata:
            return None
        with self._readable():
            return self.dataset.dataset_mask(window=_window(rows, columns)) > 0

    def overview(self, size: tuple[int, int]) -> np.ndarray:
        """The whole, smaller: ``size`` (H, W) -> (H, W, 3) uint8, RGB."""
        with self._readable():
            return self._rgb(self.dataset.read(self.bands, out_shape=(len(self.bands), *size)))

    def place(self) -> dict[str, Any]:
        """Options for a raster of the same size and place."""
        dataset = self.dataset
        place = {"height": dataset.height, "width": dataset.width, "crs": dataset.crs}
        gcps, gcps_crs = dataset.gcps
        if gcps:
            return {**place, "gcps": gcps, "crs": gcps_crs}
        return place if dataset.transform.is_identity else {**place, "transform": dataset.transform}

    def _check_kind(self) -> None:
        if self.dataset.driver not in _DRIVERS:
            raise ZssError(
                f"{self.path}: a file of the kind {self.dataset.driver} is not read; give a TIFF, "
                "PNG, JPEG, WebP or BMP"
            )

    def _check(self) -> None:
        dtypes = {self.dataset.dtypes[band - 1] for band in self.bands}
        if not dtypes <= {"uint8", "uint16"}:
            raise ZssError(
                f"{self.path}: its bands are {', '.join(sorted(dtypes))}, whose range is unknown; "
                "use a copy of 8 bit: gdal_translate -ot Byte -scale IN.tif OUT.tif"
            )
        tags = {**self.dataset.tags(), **self.dataset.tags(ns="EXIF")}
        if tags.get("EXIF_Orientation", "1").strip() not in ("0", "1"):
            raise ZssError(
                f"{self.path}: an image to be turned by its EXIF data cannot be read by windows; "
                "use a copy that is upright without it, or a larger --large"
            )

    def _rgb(self, values: np.ndarray) -> np.ndarray:
        """Bands (b, h, w) -> (h, w, 3) uint8."""
        if self._palette is not None:
            return self._palette[values[0]]
        if values.dtype == np.uint16:
            values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(
            np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0)
        )

    @cached_property
    def _palette(self) -> np.ndarray | None:
        """Colours (256, 3) uint8 that a single band of 8 bit stands for."""
        from rasterio.enums import ColorInterp

        if self.dataset.colorinterp[0] != ColorInterp.palette or self.dataset.dtypes[0] != "uint8":
            return None
        table = np.zeros((256, 3), np.uint8)
        for value, colour in self.dataset.colormap(1).items():
            table[value] = colour[:3]
        return table

    @contextmanager
    def _readable(self) -> Iterator[None]:
        from rasterio.errors import RasterioError

        try:
            yield
        except (RasterioError, OSError) as error:
            reason = error.__cause__ or error
            raise ZssError(
                f"{self.path}: rasterio cannot read it ({reason}); restore the file"
            ) from None


def _window(rows: slice, columns: slice) -> Any:
    from rasterio.windows import Window

    return Window(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
