"""Pseudo labels that ``zss predict`` has written for the images of a training."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from zss_d2.data.files.images import read_mask
from zss_d2.data.files.predictions import KIND, MANIFEST, RECORDS
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

KEY = "ZERO_SHOT.SELF_TRAINING.FOLDER"


class WrittenLabels:
    """Label maps of an output folder of ``zss predict``, in the ids of a data set.

    Its manifest says which class an id stands for; classes are matched by name, so their order is
    free. Pixels that are background, unknown or without data there have no pseudo label.
    """

    def __init__(self, folder: Path, classes: Sequence[str], unseen: Sequence[str], ignore: int):
        """
        Args:
            folder: output folder of ``zss predict``.
            classes: of the data set, in the order of its ids.
            unseen: those of them whose labels training must not see.
            ignore: its ignore label.

        Raises:
            ZssError: no such folder, or one that is not finished; a word that is no class; a model
                that was trained with labels of unseen classes, or looked at them.
        """
        self.folder = folder
        manifest = _manifest(folder)
        words = manifest["words"]
        names = [wordings[0] for wordings in words["classes"]]
        strange = [name for name in names if name not in classes]
        if strange:
            raise _wrong(folder, f"has labels of {strange[0]!r}, which is no class of the training")
        leaked = sorted(set(manifest.get("trained", {}).get("labelled_classes", ())) & set(unseen))
        if leaked:
            raise _wrong(
                folder,
                f"was labelled by a model that was trained with labels of {len(leaked)} unseen "
                f"classes, such as {leaked[0]!r}",
            )
        if manifest.get("trained", {}).get("leaky"):
            raise _wrong(
                folder, "was labelled by a model whose training looked at hidden labels (a leak)"
            )
        ids = [*([ignore] if words["background"] else []), *map(list(classes).index, names)]
        # As narrow as masks are: not all that resizes them takes wide integers.
        self._lut = np.full(65536, ignore, np.min_scalar_type(max(ignore, len(classes))))
        self._lut[: len(ids)] = ids
        # Of the labels of images whose bytes were counted.
        self._files, self._sizes = _files(folder)
        logger.info(
            "Pseudo labels of %s: %s, checkpoint %s; %d classes, %d of them unseen",
            *(folder, manifest["method"], manifest.get("checkpoint") or "none", len(names)),
            len(set(names) & set(unseen)),
        )

    def require(self, records: Iterable[Mapping[str, str]]) -> None:
        """Raise `ZssError` unless there are labels of every image of these records."""
        records = list(records)
        missing = [r["file_name"] for r in records if self._file(r["file_name"]) is None]
        if missing:
            raise _wrong(
                self.folder,
                f"has no labels of {len(missing)} of the {len(records)} training images, such as "
                f"{missing[0]}",
            )

    def read(self, image: str, size: Sequence[int]) -> np.ndarray:
        """Labels of an image (H, W) in the ids of the data set, or the ignore label.

        Args:
            image: its path.
            size: (H, W) that they must have.

        Raises:
            ZssError: a missing or unreadable file, one of another size, or of another image.
        """
        path = self._file(image)
        if path is None:
            raise _wrong(self.folder, f"has no labels of {image}")
        size_then = self._sizes.get(str(path.relative_to(self.folder)))
        if size_then not in (None, os.path.getsize(image)):
            raise _wrong(
                self.folder,
                f"has labels of another image than {image}: that had {size_then} bytes, this one "
                f"has {os.path.getsize(image)}",
            )
        labels = read_mask(path)
        if labels.shape != tuple(size):
            raise ZssError(
                f"{path}: labels of {labels.shape[1]} x {labels.shape[0]} px for {image} of "
                f"{size[1]} x {size[0]}; label the training images themselves"
            )
        return self._lut[labels]

    def _file(self, image: str) -> Path | None:
        """The labels of the image whose path ends as that of a record does, at best wholly."""
        parts = PurePath(image).parts
        ends = (str(PurePath(*parts[first:])) for first in range(len(parts)))
        name = next((self._files[end] for end in ends if end in self._files), None)
        return None if name is None else self.folder / name


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise _wrong(folder, f"has no {MANIFEST}, which zss predict writes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND or not content["words"]["classes"]:
            raise ValueError
        content["words"]["background"], content["method"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _wrong(folder, f"has a damaged {MANIFEST}, or not one of zss predict") from None
    if content.get("state") != "finished":
        raise _wrong(folder, "is not finished: run its zss predict again, which goes on")
    return content


def _files(folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """What was labelled.

    Returns:
        path of an image below the folder that was labelled -> its labels, relative to ``folder``;
        those -> bytes of the image's file, where they are known.
    """
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    try:
        with (folder / RECORDS).open(encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                if "labels" in record.get("files", {}):
                    labels = str(PurePath(record["files"]["labels"]))
                    files[record["file_name"]] = labels
                    if record.get("stamp"):
                        sizes[labels] = record["stamp"][0]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise _wrong(folder, f"has no {RECORDS} that can be read") from None
    return files, sizes


def _wrong(folder: Path, problem: str) -> ZssError:
    return ZssError(
        f"{KEY} {folder} {problem}; give the --output of zss predict on the training images with "
        "--formats labels and names of classes as --classes"
    )
