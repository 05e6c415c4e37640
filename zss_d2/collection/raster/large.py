"""An image that is labelled window by window: neither it nor its labels are ever in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zss_d2.collection.raster.labels import write_labels
from zss_d2.collection.raster.reading import Raster, import_rasterio
from zss_d2.engine.processes import interrupt
from zss_d2.predict.formats.records import annotations_of
from zss_d2.predict.options import Options
from zss_d2.predict.result import Prediction, label_counts, shares_of
from zss_d2.predict.words import Words

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor

# Longest side of the picture that an overlay is made of, px.
OVERVIEW_PX = 4096


@dataclass(frozen=True)
class LargeLabels:
    """What is known of the labels of a large image, once they are written.

    Attributes:
        counts: pixels of every label id.
        sums: of their scores.
    """

    path: Path
    words: Words
    counts: np.ndarray
    sums: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        with import_rasterio(str(self.path)).open(self.path) as dataset:
            return dataset.shape

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        """Labels of some columns; all rows."""
        with import_rasterio(str(self.path)).open(self.path) as dataset:
            columns = range(dataset.width)[place[1]]
            return dataset.read(1, window=((0, dataset.height), (columns.start, columns.stop)))

    def record(self, file_name: str, masks: bool) -> dict[str, Any]:
        """As `zss_d2.predict.formats.record`."""
        height, width = self.shape
        found = annotations_of(self, self.counts, self.sums, self.words) if masks else []
        kept = {"annotations": found} if masks else {}
        area = shares_of(self.counts, self.words)
        return {"file_name": file_name, "width": width, "height": height, "area": area, **kept}

    def overview(self, raster: Raster) -> Prediction:
        """The image and its labels, of at most `OVERVIEW_PX`; without scores."""
        height, width = self.shape
        shrink = max(1.0, max(height, width) / OVERVIEW_PX)
        size = max(1, round(height / shrink)), max(1, round(width / shrink))
        with import_rasterio(str(self.path)).open(self.path) as dataset:
            labels = dataset.read(1, out_shape=size)
        return Prediction(labels, np.zeros(size, np.float32), self.words, raster.overview(size))


def label_by_windows(
    predictor: Predictor,
    raster: Raster,
    words: Words,
    options: Options,
    path: Path,
    progress: Callable[[float], None],
) -> LargeLabels:
    """Label a raster and write its labels to ``path``.

    Args:
        progress: gets the share that is done, 0..1, now and then.

    Raises:
        ZssError: as `Predictor.label_tiles`; the raster is damaged.
        WriteError: the labels cannot be written.
        Interrupted: a signal has come.
    """
    counts, sums = np.zeros(words.unknown_id + 1, np.int64), np.zeros(words.unknown_id + 1)

    def fill(dataset: Any) -> None:
        for part in predictor.label_tiles(raster, words, options):
            interrupt.stop_if_requested()
            rows, columns = part.rows, part.columns
            window = (rows.start, rows.stop), (columns.start, columns.stop)
            dataset.write(part.labels, 1, window=window)
            labels = part.labels.ravel()
            counts[:] += label_counts(labels, words)
            sums[:] += np.bincount(labels, weights=part.scores.ravel(), minlength=len(sums))
            progress(counts.sum() / (raster.size[0] * raster.size[1]))

    write_labels(path, raster.place(), raster.has_nodata, words, fill)
    return LargeLabels(path, words, counts, sums)
