"""Files that predictions are written to, by the names that commands know them by.

Importing this is quick: what a format needs is imported when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zss_d2.errors import ZssError
from zss_d2.predict.formats.base import CollectionFormat, ImageFormat, Record
from zss_d2.predict.formats.records import annotations, record

if TYPE_CHECKING:
    from zss_d2.predict.result import Prediction

__all__ = [
    "FORMATS",
    "CollectionFormat",
    "ImageFormat",
    "Record",
    "annotations",
    "collection_formats",
    "image_formats",
    "record",
    "save",
]


def _late(module: str, function: str) -> Callable[..., Any]:
    """A function of a module here, which is imported when the function is called."""

    def call(*args: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), function)(*args)

    return call


FORMATS: Mapping[str, ImageFormat | CollectionFormat] = {
    "labels": ImageFormat(
        "PNG of label ids with a colour palette (16 bit grey where there are more than 254)",
        "labels",
        ".png",
        _late("image_files", "write_labels"),
    ),
    "overlay": ImageFormat(
        "PNG of the image under its labels in colour, with a legend",
        "overlay",
        ".png",
        _late("image_files", "write_overlay_png"),
    ),
    "overlay-jpg": ImageFormat(
        "the same as JPEG",
        "overlay",
        ".jpg",
        _late("image_files", "write_overlay_jpeg"),
    ),
    "npz": ImageFormat(
        "NumPy arrays: labels, scores of the best class, names",
        "npz",
        ".npz",
        _late("image_files", "write_arrays"),
    ),
    "coco": CollectionFormat(
        "COCO JSON, a mask (RLE) per class and image",
        "coco.json",
        True,
        _late("coco", "write_coco"),
    ),
    "labelstudio": CollectionFormat(
        "tasks for Label Studio, with masks as predictions, and the labelling interface",
        "labelstudio.json",
        True,
        _late("labelstudio", "write_tasks"),
        [(".xml", _late("labelstudio", "interface"))],
    ),
    "cvat": CollectionFormat(
        "CVAT for images 1.1, with masks, and the labels of the task",
        "cvat.xml",
        True,
        _late("cvat", "write_cvat"),
        [("_labels.json", _late("cvat", "labels"))],
    ),
    "csv": CollectionFormat(
        "table for spreadsheets: share of every class, percent, per image",
        "areas.csv",
        False,
        _late("table", "write_table"),
    ),
}


def image_formats(names: Iterable[str]) -> dict[str, ImageFormat]:
    """Those of the named formats that have a file per image; raises ZssError for other names."""
    return {k: v for k, v in _named(names).items() if isinstance(v, ImageFormat)}


def collection_formats(names: Iterable[str]) -> dict[str, CollectionFormat]:
    """Those of the named formats that have a file per collection; raises ZssError."""
    return {k: v for k, v in _named(names).items() if isinstance(v, CollectionFormat)}


def _named(names: Iterable[str]) -> dict[str, ImageFormat | CollectionFormat]:
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ZssError(f"there are no formats; give one or more of {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise ZssError(f"{name!r} is no format; give some of {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in names}


def save(prediction: Prediction, folder: Path, formats: Sequence[str], name: str) -> list[Path]:
    """Write the files of one image; see `Prediction.save`."""
    single, joint = image_formats(formats), collection_formats(formats)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ZssError(f"name is {name!r}; give one that stays within the folder, such as 'image'")
    written = []
    for form in single.values():
        written.append(form.path(folder, name))
        form.write(written[-1], prediction)
    if joint:
        masks = any(form.needs_masks for form in joint.values())
        records = [record(prediction, name, masks)]
        for form in joint.values():
            written += form.write(form.path_of_one(folder, name), prediction.words, records)
    return written
