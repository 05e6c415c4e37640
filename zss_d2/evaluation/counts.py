"""Pixel counts of an evaluation, also of every single image, and the file they are kept in."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zss_d2.errors import ZssError
from zss_d2.evaluation.results import evaluate_again
from zss_d2.evaluation.shape.counts import COLUMNS
from zss_d2.utils.writing import write_atomic

# Of one image: its key, the cells of the flattened confusion matrix that are not 0, their values.
ImageEntry = tuple[str, np.ndarray, np.ndarray]


def image_key(record: Mapping[str, Any]) -> str:
    """What an image is called in every run, wherever its file lies."""
    return str(record.get("image_id", Path(record["file_name"]).stem))


def sparse(key: str, confusion: np.ndarray) -> ImageEntry:
    """The entry of an image with this confusion matrix (K, K)."""
    flat = confusion.reshape(-1)
    cells = np.flatnonzero(flat)
    return key, cells.astype(np.int32), flat[cells].astype(np.int32)


@dataclass(frozen=True)
class ImageCounts:
    """Confusion matrices (K, K) of N images, without their zeros.

    Args:
        keys: of the images, sorted.
        starts: (N + 1,) where each image begins in the two others.
        cells: positions in the flattened matrix.
        values: pixels there.
        num_classes: K.
    """

    keys: tuple[str, ...]
    starts: np.ndarray
    cells: np.ndarray
    values: np.ndarray
    num_classes: int

    @classmethod
    def join(cls, entries: Iterable[ImageEntry], num_classes: int) -> ImageCounts:
        """Put images together, in the order of their keys."""
        entries = sorted(entries, key=lambda entry: entry[0])
        empty = [np.zeros(0, np.int32)]
        return cls(
            keys=tuple(key for key, _, _ in entries),
            starts=np.cumsum([0, *(len(cells) for _, cells, _ in entries)]),
            cells=np.concatenate(empty + [cells for _, cells, _ in entries]),
            values=np.concatenate(empty + [values for _, _, values in entries]),
            num_classes=num_classes,
        )

    @property
    def image_of_cell(self) -> np.ndarray:
        """Index of the image that each entry of ``cells`` belongs to."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Confusion matrix (K, K) of a set that holds image i ``weights[i]`` times."""
        size = self.num_classes**2
        weighted = self.values * weights[self.image_of_cell]
        return np.bincount(self.cells, weighted, size).reshape(2 * (self.num_classes,))

    def per_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels per image and class that are right, true and predicted, each (N, K)."""
        predicted, true = np.divmod(self.cells, self.num_classes)
        right = predicted == true
        return (
            self._sums(true[right], right),
            self._sums(true, slice(None)),
            self._sums(predicted, slice(None)),
        )

    def _sums(self, classes: np.ndarray, chosen: np.ndarray | slice) -> np.ndarray:
        shape = len(self.keys), self.num_classes
        place = self.image_of_cell[chosen] * self.num_classes + classes
        return np.bincount(place, self.values[chosen], shape[0] * shape[1]).reshape(shape)


class StoredShapes(NamedTuple):
    """`shape_counts` (K, columns) added over so many images."""

    counts: np.ndarray
    num_images: int


@dataclass(frozen=True)
class StoredCounts:
    """What an evaluation keeps beside its metrics; ``shapes`` where they were measured."""

    confusion: np.ndarray
    class_names: tuple[str, ...]
    unseen_names: tuple[str, ...]
    images: ImageCounts | None = None
    shapes: StoredShapes | None = None

    @property
    def unseen_ids(self) -> list[int]:
        return [i for i, name in enumerate(self.class_names) if name in self.unseen_names]


def counts_file(folder: Path, dataset_name: str) -> Path:
    """Where the counts of a data set lie in the folder of a run."""
    return folder / f"confusion_{dataset_name}.npz"


def write_counts(path: Path, counts: StoredCounts) -> None:
    """Write everything to a compressed .npz, atomically."""
    arrays: dict[str, Any] = {
        "confusion": counts.confusion,
        "class_names": _strings(counts.class_names),
        "unseen_names": _strings(counts.unseen_names),
    }
    if counts.images is not None:
        arrays |= {
            "image_keys": _strings(counts.images.keys),
            "image_starts": counts.images.starts,
            "image_cells": counts.images.cells,
            "image_values": counts.images.values,
        }

    if counts.shapes is not None:
        arrays |= {
            "shape_columns": _strings(COLUMNS),
            "shape_counts": counts.shapes.counts,
            "shape_images": np.array(counts.shapes.num_images),
        }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_atomic(path, write)


def read_counts(path: Path) -> StoredCounts:
    """Read what `write_counts` wrote.

    Raises:
        ZssError: the file is missing or not of this kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        counts = StoredCounts(
            confusion=arrays["confusion"],
            class_names=tuple(arrays["class_names"].tolist()),
            unseen_names=tuple(arrays["unseen_names"].tolist()),
            images=_image_counts(arrays) if "image_keys" in arrays else None,
            shapes=_shapes(arrays),
        )
        _check_shapes(counts)
    except FileNotFoundError:
        raise ZssError(f"{path} is missing; {evaluate_again(path.parent)}") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ZssError(
            f"{path} cannot be read ({type(error).__name__}); {evaluate_again(path.parent)}"
        ) from None
    return counts


def _image_counts(arrays: Mapping[str, np.ndarray]) -> ImageCounts:
    return ImageCounts(
        keys=tuple(arrays["image_keys"].tolist()),
        starts=arrays["image_starts"],
        cells=arrays["image_cells"],
        values=arrays["image_values"],
        num_classes=len(arrays["class_names"]),
    )


def _shapes(arrays: Mapping[str, np.ndarray]) -> StoredShapes | None:
    """None also for those of a version that counted something else."""
    if "shape_columns" not in arrays or tuple(arrays["shape_columns"].tolist()) != COLUMNS:
        return None
    return StoredShapes(arrays["shape_counts"], int(arrays["shape_images"]))


def _check_shapes(counts: StoredCounts) -> None:
    """Raise ValueError where the arrays do not belong together."""
    number, images = len(counts.class_names), counts.images
    fit = counts.confusion.shape == (number, number) and counts.confusion.dtype.kind in "iu"
    fit = fit and set(counts.unseen_names) <= set(counts.class_names)
    if images is not None:
        cells = images.cells
        fit = fit and images.starts.shape == (len(images.keys) + 1,)
        fit = fit and cells.shape == images.values.shape == (images.starts[-1],)
        fit = fit and (not cells.size or 0 <= cells.min() <= cells.max() < number**2)
    if counts.shapes is not None:
        fit = fit and counts.shapes.counts.shape == (number, len(COLUMNS))
    if not fit:
        raise ValueError("arrays of other shapes")


def _strings(names: Sequence[str]) -> np.ndarray:
    return np.array(names, dtype=str) if names else np.zeros(0, "U1")
