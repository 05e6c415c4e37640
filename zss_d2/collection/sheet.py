"""A picture of the first images of a collection and their labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from zss_d2.collection.state.folder import OutputFolder
from zss_d2.collection.state.journal import DONE
from zss_d2.data.files.images import read_mask
from zss_d2.errors import ZssError
from zss_d2.predict.decode import load_image
from zss_d2.predict.result import Prediction
from zss_d2.predict.sheet import sheet
from zss_d2.predict.words import Words
from zss_d2.utils.writing import write_atomic

SHEET = "sheet.png"


def write_sheet(folder: OutputFolder, words: Words, number: int, opacity: float) -> Path | None:
    """Draw the first images whose labels are PNGs; returns the file, None if there are none.

    Args:
        number: of images, at most.
        opacity: of the labels, 0..1.

    Raises:
        WriteError: the file cannot be written.
    """
    predictions = islice(_predictions(folder, words), number)
    first = next(predictions, None)
    if first is None:
        return None
    path = folder.path / SHEET
    picture = sheet(chain([first], predictions), opacity=opacity)
    write_atomic(path, lambda file: picture.save(file, format="PNG", optimize=True))
    return path


def _predictions(folder: OutputFolder, words: Words) -> Iterator[Prediction]:
    """What is on disk of images that can be shown, in the order of their names."""
    for _, entry in sorted(folder.records().entries.items()):
        labels = dict(entry.files).get("labels", "")
        if entry.status != DONE or not labels.endswith(".png"):
            continue
        try:
            ids, image = read_mask(folder.path / labels), load_image(entry.source)
        except ZssError:  # gone since, or of more pixels than fit into memory
            continue
        if ids.shape == image.shape[:2]:
            yield Prediction(ids.astype(words.dtype), np.zeros(ids.shape, np.float32), words, image)
