"""What a model makes of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zss_d2.predict.options import OPACITY
from zss_d2.predict.words import UNKNOWN

if TYPE_CHECKING:
    from zss_d2.predict.words import Words


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels of an image, upright as it is meant to be seen.

    Attributes:
        labels: (H, W) uint8, or uint16 for many classes: ids into `classes`, or `unknown_id`.
        scores: (H, W) float32 in 0..1, of the best class of every pixel, less the seen bias.
        words: what it was labelled with.
        image: (H, W, 3) uint8, RGB.
        class_scores: (K, H, W) float32, of every word, background words last; None: not kept.
    """

    labels: np.ndarray
    scores: np.ndarray
    words: Words
    image: np.ndarray
    class_scores: np.ndarray | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label id."""
        return self.words.names

    @property
    def unknown_id(self) -> int:
        """Label of pixels whose best score was too low."""
        return self.words.unknown_id

    @cached_property
    def area(self) -> dict[str, float]:
        """Share of the image, 0..1, by class name; with ``unknown`` if a threshold was set."""
        return shares_of(label_counts(self.labels, self.words), self.words)

    def overlay(self, opacity: float = OPACITY, legend: bool = True) -> Image.Image:
        """The image under its labels in colour; `zss_d2.predict.overlay.overlay`."""
        from zss_d2.predict.overlay import overlay

        return overlay(self, opacity, legend)

    def to_coco(self) -> list[dict[str, Any]]:
        """A COCO annotation per class that occurs, with its mask as compressed RLE.

        ``category_id`` is the label id; ``score`` the mean over the pixels of the class. Background
        and unknown pixels have none.
        """
        from zss_d2.predict.formats import annotations

        return annotations(self)

    def save(
        self,
        folder: str | PathLike[str],
        formats: Sequence[str] = ("labels", "overlay"),
        name: str = "image",
    ) -> list[Path]:
        """Write files into a folder, as ``zss predict`` lays them out; returns their paths.

        Formats with one file for all images get one for this image alone, ``coco/NAME.json``
        instead of ``coco.json``.

        Args:
            formats: names in `zss_d2.predict.formats.FORMATS`.
            name: of the image, without suffix; ``a/b`` is within a folder ``a``.

        Raises:
            ZssError: an unknown format; a name that leads out of the folder; a file cannot be
                written.
        """
        from zss_d2.predict.formats import save

        return save(self, Path(folder), formats, name)


def label_counts(labels: np.ndarray, words: Words) -> np.ndarray:
    """How many pixels of labels (h, w) have every label id: (unknown id + 1,)."""
    return np.bincount(labels.ravel(), minlength=words.unknown_id + 1)


def shares_of(counts: np.ndarray, words: Words) -> dict[str, float]:
    """`Prediction.area` of the `label_counts` of an image."""
    ids = [*range(len(words.names)), words.unknown_id]
    shares = (counts[ids] / counts.sum()).tolist()
    area = dict(zip((*words.names, UNKNOWN), shares, strict=True))
    if not words.unknown_below:
        del area[UNKNOWN]
    return area
