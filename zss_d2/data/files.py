"""Reading images and masks with errors a user can act on; writing files in one step."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.io
from detectron2.data.detection_utils import read_image
from PIL import Image
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


def read_photo(path: str | Path, image_format: str = "RGB") -> np.ndarray:
    """Read an image as (H, W, 3) uint8, upright as its EXIF data says.

    Raises ZssError naming the file.
    """
    try:
        return read_image(str(path), format=image_format)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'image')}") from None


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label mask as (H, W) integers, keeping palette indices and 16-bit values.

    Raises ZssError naming the file.
    """
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
    except _DECODE_ERRORS as error:
        raise ZssError(f"{path}: {_describe(error, 'mask')}") from None
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
            f"{image_path} is {image.shape[1]}x{image.shape[0]}; fetch both again"
        )
    return image, mask


def read_prepared_pair(
    record: Mapping[str, str], num_classes: int, ignore_label: int, image_format: str = "RGB"
) -> tuple[np.ndarray, np.ndarray]:
    """Read the image and the train-id mask of a record of `zss_d2.data.registry`.

    Raises ZssError as `read_pair` does, and for a value that is neither an id nor the ignore label.
    """
    path = record["sem_seg_file_name"]
    image, labels = read_pair(record["file_name"], path, image_format)
    try:
        check_labels(labels, num_classes, ignore_label)
    except UndefinedLabelError as error:
        raise ZssError(
            f"{path}: {error} outside 0..{num_classes - 1} and not the ignore label "
            f"{ignore_label}; delete the file and prepare the data set again"
        ) from None
    return image, labels


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Return (width, height) in px as the file's header says; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
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
