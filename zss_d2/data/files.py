"""Reading images and masks with errors a user can act on; writing files in one step."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.io
from detectron2.data.detection_utils import read_image
from detectron2.utils.logger import log_first_n
from PIL import ExifTags, Image
from scipy.io.matlab import MatReadError

from zss_d2.data.labels import UndefinedLabelError, check_labels
from zss_d2.errors import ZssError

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

# A 16-bit photo that stays below this grey level, of 255, is as good as black: it probably holds
# the 10 or 12 bits of a camera.
DARK_LEVEL = 32


def read_photo(path: str | Path, image_format: str = "RGB") -> np.ndarray:
    """Read an image as (H, W, 3) uint8, upright as its EXIF data says.

    Grey is repeated; 16 bits, 0..65535, become 0..255; transparency is dropped, so that colours are
    those that the file holds.

    Raises ZssError naming the file, also for 32 bits or floating point, whose range is unknown.
    """
    try:
        wide = photo_storage(path) == "16 bit"
        image = read_image(str(path), format=None if wide else image_format)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'image')}") from None
    if not wide:
        return image
    grey = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if grey.max() < DARK_LEVEL:
        log_first_n(
            logging.WARNING,
            f"{path}: 16-bit photo without a value above {image.max()} of 65535, nearly black; "
            "if it holds fewer bits, train on copies that are stretched to the full range",
        )
    return np.stack([grey] * 3, axis=-1)


def photo_storage(path: str | Path) -> str:
    """Say how the file stores its photo: ``16 bit`` (grey), ``transparent``, or nothing special.

    Only the header is read. Raises ZssError for pixels whose range is unknown, and what Pillow
    raises.
    """
    with Image.open(path) as image:
        mode = image.mode
        if mode in _EIGHT_BIT_MODES:
            return "transparent" if image.has_transparency_data else ""
        # "I", 32 bit, is what some versions of Pillow read 16-bit PNGs as; PGM is scaled to 16 bit.
        if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
            return "16 bit"
    raise ZssError(
        f"{path}: image is stored in mode {mode!r} ({image.format}), whose range is unknown; use a "
        "copy with 8 bits a channel, grey or RGB"
    )


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label mask as (H, W) integers, keeping palette indices and 16-bit values.

    Raises ZssError naming the file, also where its values need not be the ids that were drawn.
    """
    try:
        with Image.open(path) as image:
            doubt = _mask_doubt(image)
            mask = np.asarray(image)
            doubt = doubt or _orientation_doubt(image)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
    if doubt:
        raise ZssError(f"{path}: {doubt}")
    if mask.ndim != 2 or mask.dtype.kind not in "ui":
        raise ZssError(
            f"{path}: mask is stored as {mask.dtype} with shape {mask.shape}; "
            "one channel of class ids (8 or 16 bit, palette or grey) is needed"
        )
    return mask


def read_pair(
    image_path: str | Path,
    mask_path: str | Path,
    image_format: str = "RGB",
    read: Callable[[Path], np.ndarray] = read_mask,
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, 3) and, by ``read``, its mask (H, W).

    Raises ZssError also where sizes disagree.
    """
    image, mask = read_photo(image_path, image_format), read(mask_path)
    if mask.shape != image.shape[:2]:
        raise ZssError(
            f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]} px but its image "
            f"{image_path}, upright, is {image.shape[1]}x{image.shape[0]}; give a mask of that size"
        )
    return image, mask


def read_prepared_pair(
    record: Mapping[str, str],
    num_classes: int,
    ignore_label: int,
    image_format: str = "RGB",
    *,
    remedy: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Read the image and the train-id mask of a record of `zss_d2.data.registry`.

    Raises ZssError as `read_pair` does, and, with the remedy, for a value that is neither an id nor
    the ignore label.
    """
    path = record["sem_seg_file_name"]
    image, labels = read_pair(record["file_name"], path, image_format)
    try:
        check_labels(labels, num_classes, ignore_label)
    except UndefinedLabelError as error:
        raise ZssError(
            f"{path}: {error} outside 0..{num_classes - 1} and not the ignore label "
            f"{ignore_label}; {remedy}"
        ) from None
    return image, labels


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Return (width, height) in px, upright, as the header says; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            # Asked for EXIF data that is not there, a PNG is decoded.
            may_turn = image.format != "PNG" or "exif" in image.info
            turned = may_turn and _orientation(image) in range(5, 9)
            return image.size[::-1] if turned else image.size
    except _DECODE_ERRORS:
        return None


def read_matlab_mask(path: str | Path) -> np.ndarray:
    """Read the variable ``LabelMap`` (H, W) of a .mat file; raises ZssError naming the file."""
    try:
        labels = scipy.io.loadmat(path, variable_names=["LabelMap"])["LabelMap"]
    except KeyError:
        raise ZssError(f"{path}: has no variable LabelMap; give PASCAL Context's files") from None
    except (*_DECODE_ERRORS, TypeError, MatReadError) as error:
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ZssError(
            f"{path}: LabelMap is {labels.dtype} with shape {labels.shape}; class ids are needed"
        )
    return labels


def mask_storage(path: str | Path) -> str:
    """Say how the file stores its mask: ``palette``, ``16 bit``, or an empty string for 8 bit."""
    with Image.open(path) as image:
        mode = image.mode
    return "palette" if mode == "P" else "16 bit" if mode.startswith("I") else ""


def read_id_list(path: Path) -> list[str]:
    """Read one image id per line; raises ZssError naming the file and the line."""
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
        raise ZssError(f"{path}: no such list; lists in that folder: {others}")
    ids: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1 or "/" in name or "\\" in name:
            raise ZssError(f"{path}: line {number}: {name!r} is not an image id; give one per line")
        if name in ids:
            raise ZssError(
                f"{path}: line {number}: {name!r} is also on line {ids[name]}; remove one"
            )
        ids[name] = number
    if not ids:
        raise ZssError(f"{path}: the list is empty; give one image id per line")
    return list(ids)


def require_folder(path: Path, remedy: str) -> None:
    """Raise ZssError, with the remedy, unless ``path`` is a folder."""
    if path.is_file():
        raise ZssError(f"{path}: this is a file, a folder is needed; {remedy}")
    if not path.is_dir():
        raise ZssError(f"{path}: no such folder; {remedy}")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` create a file beside ``path``, then move it there: never half a file.

    The folder is created. The temporary name ends in ``.tmp``, so no listing takes it for data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_mask(path: Path, labels: np.ndarray) -> None:
    """Write (H, W) uint8 or uint16 labels as a grey PNG, atomically."""
    image = Image.fromarray(labels)
    write_atomic(path, lambda temporary: image.save(temporary, format="PNG"))


def _describe(error: Exception, kind: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the {kind} is missing; restore it or prepare the data set again"
    return f"unreadable {kind} ({type(error).__name__}); fetch the file again"


def _mask_doubt(image: Image.Image) -> str:
    """Say why a mask that is not loaded yet need not hold the ids that were drawn, and what to do.

    Nothing where it does.
    """
    if image.format in ("JPEG", "MPO"):
        return "mask is a JPEG, whose compression changes ids; export it anew as a PNG"
    packed = image.tile[0][3] if image.format == "PNG" and image.mode == "L" else ""
    if image.mode == "1" or packed in ("L;2", "L;4"):
        bits = packed.removeprefix("L;") or "1"
        return (
            f"mask is stored as {bits}-bit grey, which readers stretch to 0..255, so that ids and "
            "stretched ids look alike; use an 8-bit copy"
        )
    return ""


def _orientation_doubt(image: Image.Image) -> str:
    """As `_mask_doubt`, of a loaded mask."""
    if _orientation(image) not in range(2, 9):
        return ""
    return (
        "mask is to be turned by its EXIF data, which programs that draw masks seldom mean; use a "
        "copy that is upright without it"
    )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation: 1 upright, 2 to 8 not, 5 to 8 with the sides exchanged."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)
