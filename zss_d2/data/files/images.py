"""Reading images and masks with errors a user can act on."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from zss_d2.data.files.mask_warnings import mask_warning, raw_mode
from zss_d2.errors import ZssError
from zss_d2.utils.writing import read_stamp

# Everything Pillow raises for missing, truncated, corrupt or absurdly large files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Pixels of 8 bits a channel or less, whose range Pillow's conversion to RGB keeps.
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

# A 16-bit image that stays below this level, of 255, is as good as black: it probably holds the 10
# or 12 bits of a camera.
DARK_LEVEL = 32

# What `image_storage` says of images whose range may be larger than what they use.
WIDE_IMAGES = frozenset({"16 bit grey", "16 bit colour"})

# Pixels that an image may have; Pillow's own limit, a guard against files that unpack to fill the
# memory, counts if it is unset.
PIXEL_LIMIT = "ZSS_MAX_IMAGE_PIXELS"


def read_image(path: str | Path, image_format: str = "RGB") -> np.ndarray:
    """Read an image as (H, W, 3) uint8, upright as its EXIF data says.

    Grey is repeated; 16 bits, 0..65535, become 0..255; transparency is dropped, so that colours are
    those that the file holds.

    Raises ZssError naming the file, also for 32 bits or floating point, whose range is unknown, and
    for a TIFF to be turned.
    """
    # Loads torch, which commands that only list images or print their help do without.
    from detectron2.utils.logger import log_first_n

    try:
        storage = image_storage(path)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'image')}") from None
    image = decode_image(path, str(path))
    if image_format == "BGR":
        image = image[..., ::-1]
    if is_dark(storage, image):
        log_first_n(
            logging.WARNING,
            f"{path}: 16-bit image without a value above {image.max()} of 255, nearly black; "
            "if it holds fewer bits, train on copies that are stretched to the full range",
        )
    return image


def decode_image(source: str | Path | IO[bytes] | Image.Image, name: str) -> np.ndarray:
    """Decode an image -> (H, W, 3) uint8, upright as its EXIF data says; see `read_image`.

    Args:
        source: a path, a binary file, or an image that Pillow has opened.
        name: of the image, for errors.

    Raises ZssError as `read_image` does, but for a TIFF to be turned, which is turned.
    """
    try:
        image = source if isinstance(source, Image.Image) else _open(source)
        if 0 in image.size:
            raise ZssError(f"{name}: the image has {image.width}x{image.height} px; leave it out")
        wide = _is_wide_grey(image)
        if not wide and image.mode not in _EIGHT_BIT_MODES:
            raise ZssError(f"{name}: {_unknown_range(image)}")
        # EXIF data may stand behind the pixels. A TIFF is turned as it is read, once.
        image.load()
        image = ImageOps.exif_transpose(image)
        if not wide:
            return np.asarray(image.convert("RGB"))
        values = np.asarray(image).astype(np.uint32)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{name}: {_describe(error, 'image')}") from None
    return np.stack([((values + 128) // 257).astype(np.uint8)] * 3, axis=-1)


def image_storage(path: str | Path) -> frozenset[str]:
    """Say what is special about how the file stores its image.

    Of ``16 bit grey``, ``16 bit colour``, ``transparent`` and ``turned`` (by its EXIF data). Only
    the header is read. Raises ZssError for an image that need not be read as it was meant, and what
    Pillow raises.
    """
    with _open(path) as image:
        mode, found = image.mode, set()
        if _is_wide_grey(image):
            found.add("16 bit grey")
        elif mode not in _EIGHT_BIT_MODES:
            raise ZssError(f"{path}: {_unknown_range(image)}")
        elif ";16" in raw_mode(image):
            found.add("16 bit colour")
        if mode in _EIGHT_BIT_MODES and image.has_transparency_data:
            found.add("transparent")
        if _may_turn(image) and _orientation(image) in range(2, 9):
            if image.format == "TIFF":
                raise ZssError(
                    f"{path}: image is a TIFF to be turned, which some versions of Detectron2 do "
                    "twice; use a copy that is upright without it"
                )
            found.add("turned")
        return frozenset(found)


def is_dark(storage: frozenset[str], image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) of that `image_storage` probably holds fewer bits than 16."""
    return bool(storage & WIDE_IMAGES) and image.max() < DARK_LEVEL


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label mask as (H, W) integers, keeping palette indices and 16-bit values.

    PNG, TIFF and lossless WebP. Raises ZssError naming the file, also where its values need not be
    the ids that were drawn.
    """
    try:
        with _open(path) as image:
            # A TIFF is turned as it is read, and then no longer says so.
            turned = image.format == "TIFF" and _orientation(image) in range(2, 9)
            warning = mask_warning(image)
            mask = np.asarray(image)
            turned = turned or _orientation(image) in range(2, 9)
            is_webp = image.format == "WEBP"
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
    if turned:
        warning = warning or (
            "mask is to be turned by its EXIF data, which programs that draw masks seldom mean; "
            "use a copy that is upright without it"
        )
    if warning:
        raise ZssError(f"{path}: {warning}")
    # WebP knows no grey.
    if is_webp and mask.shape[2:] == (3,) and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "ui":
        raise ZssError(
            f"{path}: mask is stored as {mask.dtype} with shape {mask.shape}; "
            "one channel of class ids (8 or 16 bit, palette or grey) is needed"
        )
    return mask


def read_colours(path: str | Path) -> np.ndarray:
    """Read a mask whose colours stand for classes as (H, W, 3) uint8, exactly as they were drawn.

    Transparency is dropped. Raises ZssError naming the file, also for what a lossy kind of file has
    changed, or EXIF data turns.
    """
    try:
        with _open(path) as image:
            warning = mask_warning(image) if image.mode != "1" else ""
            if image.mode not in _EIGHT_BIT_MODES:
                warning = f"mask is stored in mode {image.mode!r}; give colours of 8 bits a channel"
            turned = image.format != "PNG" or "exif" in image.info
            if turned and _orientation(image) in range(2, 9):
                warning = warning or "mask is to be turned by its EXIF data; use an upright copy"
            colours = np.asarray(image.convert("RGB"))
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
    if warning:
        raise ZssError(f"{path}: {warning}")
    return colours


def read_pair(
    image_path: str | Path,
    mask_path: str | Path,
    image_format: str = "RGB",
    read: Callable[[Path], np.ndarray] = read_mask,
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, 3) and, by ``read``, its mask (H, W).

    Raises ZssError also where sizes disagree.
    """
    image, mask = read_image(image_path, image_format), read(mask_path)
    if mask.shape != image.shape[:2]:
        remedy = "give a mask of that size"
        if mask.shape == image.shape[1::-1] and "turned" in image_storage(image_path):
            remedy = (
                "EXIF data turns the image, and the mask fits it as it was before; turn the mask "
                "too, or give a copy of the image without the EXIF orientation"
            )
        raise ZssError(
            f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]} px but its image "
            f"{image_path}, upright, is {image.shape[1]}x{image.shape[0]}; {remedy}"
        )
    return image, mask


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Return (width, height) in px, upright, as the header says; None if it cannot be read."""
    try:
        with _open(path) as image:
            turned = _may_turn(image) and _orientation(image) in range(5, 9)
            return image.size[::-1] if turned else image.size
    except _DECODE_ERRORS:
        return None


def image_orientation(path: str | Path) -> int:
    """Return the EXIF orientation: 1 upright or unknown, 5 to 8 with sides exchanged."""
    try:
        with _open(path) as image:
            return _orientation(image) if _may_turn(image) else 1
    except _DECODE_ERRORS:
        return 1


def image_stamp(path: str | Path) -> str:
    """Return what `zss_d2.utils.writing.write_mask` has noted; nothing if it cannot be read."""
    try:
        with _open(path) as image:
            return read_stamp(image)
    except _DECODE_ERRORS:
        return ""


def read_matlab_mask(path: str | Path) -> np.ndarray:
    """Read the variable ``LabelMap`` (H, W) of a .mat file; raises ZssError naming the file."""
    import scipy.io  # half a second of every command that reads no such file

    try:
        labels = scipy.io.loadmat(path, variable_names=["LabelMap"])["LabelMap"]
    except KeyError:
        raise ZssError(f"{path}: has no variable LabelMap; give PASCAL Context's files") from None
    except Exception as error:  # whatever the content of a file that is none leads to
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ZssError(
            f"{path}: LabelMap is {labels.dtype} with shape {labels.shape}; class ids are needed"
        )
    return labels


def mask_storage(path: str | Path) -> str:
    """Say how the file stores its mask: ``palette``, ``16 bit``, or an empty string for 8 bit."""
    with _open(path) as image:
        mode = image.mode
    return "palette" if mode == "P" else "16 bit" if mode.startswith("I") else ""


def require_folder(path: Path, remedy: str) -> None:
    """Raise ZssError, with the remedy, unless ``path`` is a folder."""
    if path.is_file():
        raise ZssError(f"{path}: this is a file, a folder is needed; {remedy}")
    if not path.is_dir():
        raise ZssError(f"{path}: no such folder; {remedy}")


def _open(path: str | Path | IO[bytes]) -> Image.Image:
    """Open an image, whose size may be what the environment allows."""
    apply_pixel_limit()
    return Image.open(path)


def apply_pixel_limit() -> None:
    """Let images have as many pixels as the environment allows; raises ZssError if it is wrong."""
    if text := os.environ.get(PIXEL_LIMIT):
        if not text.isascii() or not text.isdigit() or int(text) == 0:
            raise ZssError(f"{PIXEL_LIMIT} is {text!r}; set it to a number of pixels, or unset it")
        # Pillow warns at its limit and refuses what is twice as large.
        Image.MAX_IMAGE_PIXELS = -(-int(text) // 2)


def _describe(error: Exception, kind: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the {kind} is missing; check the path, restore it, or prepare the data set again"
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"the {kind} is too large: more than {2 * Image.MAX_IMAGE_PIXELS} px, the limit; cut "
            f"it into tiles, or raise the limit by the environment variable {PIXEL_LIMIT}"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"the {kind} cannot be read ({error.strerror}); fix the file or link"
    return (
        f"unreadable {kind} ({type(error).__name__}); restore the file, or fetch it again if it "
        "was fetched"
    )


def _is_wide_grey(image: Image.Image) -> bool:
    # "I", 32 bit, is what some versions of Pillow read 16-bit PNGs as; PGM is scaled to 16 bit.
    is_int = image.mode == "I" and image.format in ("PNG", "PPM")
    return image.mode.startswith("I;16") or is_int


def _unknown_range(image: Image.Image) -> str:
    return (
        f"image is stored in mode {image.mode!r} ({image.format}), whose range is unknown; use a "
        "copy with 8 bits a channel, grey or RGB"
    )


def _may_turn(image: Image.Image) -> bool:
    # Asked for EXIF data that is not there, a PNG is decoded.
    return image.format != "PNG" or "exif" in image.info


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation: 1 upright, 2 to 8 not, 5 to 8 with the sides exchanged."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)
