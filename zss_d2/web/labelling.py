"""From what a visitor enters to what the page shows; nothing here knows of pages or servers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from zss_d2.data.files.images import image_size
from zss_d2.errors import ZssError
from zss_d2.predict.decode import load_image
from zss_d2.predict.formats import FORMATS, record
from zss_d2.predict.palette import label_colours
from zss_d2.predict.result import UNKNOWN, Prediction
from zss_d2.predict.words import Words, split_lines

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor

# Longer edges of what the page shows, px: larger images are shrunk, smaller ones enlarged.
_MOST_PX = 1280
_LEAST_PX = 480
# Class scores of one image that are kept for heat maps: 256 MiB while it is labelled.
_MOST_SCORES = 2**26
# What a visitor may enter; the memory for scores grows with it.
_MOST_WORDS = 200


@dataclass(frozen=True)
class Entries:
    """What a visitor enters.

    Args:
        image: uploaded file; None: none yet.
        words: text, a class per line, see `zss_d2.predict.words`.
        background: text, a background word per line.
        unknown_below: least score, 0..1.
        seen_bias: see `zss_d2.predict.options.Options`.
    """

    image: Path | None
    words: str
    background: str = ""
    unknown_below: float = 0.0
    seen_bias: float | None = None


class LegendRow(NamedTuple):
    """A class of a legend: its name, its colour as ``#rrggbb``, and its share of the image."""

    name: str
    colour: str
    share: float


@dataclass(frozen=True, eq=False)
class Labelled:
    """A labelled image, at the size that the page shows; small enough to be kept for a visitor.

    Attributes:
        shown: the image and its labels, resampled; without class scores.
        legend: by label id; shares are those of the image itself.
        heat: (h, w) uint8 by word, scores 0..1 as 0..255; empty: they were too many.
        labels_file: label map (PNG) of the image itself.
        coco_file: COCO annotations of the image itself.
    """

    shown: Prediction
    legend: tuple[LegendRow, ...]
    heat: dict[str, np.ndarray]
    labels_file: Path
    coco_file: Path

    def overlay(self, opacity: float) -> Image.Image:
        """The image under its labels in colour."""
        return self.shown.overlay(opacity, legend=False)

    def heat_map(self, word: str) -> Image.Image:
        """Scores of a word, 0 dark to 1 bright."""
        from matplotlib import colormaps

        return Image.fromarray(colormaps["inferno"](self.heat[word], bytes=True)[..., :3])


def read_upload(path: Path | None, most_pixels: int) -> np.ndarray:
    """Decode an uploaded image -> (H, W, 3) uint8, RGB; its size is looked at first.

    Raises:
        ZssError: there is none, it has more pixels than ``most_pixels``, or it cannot be read.
    """
    if path is None:
        raise ZssError("there is no image; upload one, or choose an example")
    if not path.is_file():
        raise ZssError(f"{path.name} is no longer here; upload it again")
    size = image_size(path)
    if size and size[0] * size[1] > most_pixels:
        raise ZssError(
            f"{path.name} has {size[0]}x{size[1]} px; give an image of up to "
            f"{most_pixels / 1e6:g} megapixels"
        )
    with path.open("rb") as file:
        return load_image(file, path.name)


def preview(image: np.ndarray) -> Image.Image:
    """An image (H, W, 3) at the size that the page shows."""
    return _resized(image, _shown_size(image.shape[:2]))


def read_words(entries: Entries) -> Words:
    """The words of a visitor; raises ZssError for those that are wrong, or too many."""
    classes, background = split_lines(entries.words), split_lines(entries.background)
    if len(classes) + len(background) > _MOST_WORDS:
        raise ZssError(
            f"there are {len(classes) + len(background)} words; give up to {_MOST_WORDS}"
        )
    return Words.of(classes, background, entries.unknown_below)


def read_bias(text: str) -> float | None:
    """The seen bias of a visitor; None: not given. Raises ZssError for what is no number."""
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise ZssError(f"the seen bias is {text.strip()!r}; give a number, or nothing") from None


def label(predictor: Predictor, entries: Entries, most_pixels: int, folder: Path) -> Labelled:
    """Label an uploaded image.

    Args:
        most_pixels: of the image.
        folder: new or empty, where the files to download are written.

    Raises:
        ZssError: what was entered is wrong, or of no use to the model.
    """
    words = read_words(entries)
    image = read_upload(entries.image, most_pixels)
    num_scores = len(words.vocabulary) * image.shape[0] * image.shape[1]
    prediction = predictor.predict(
        image,
        words,
        seen_bias=entries.seen_bias,
        class_scores=num_scores <= min(_MOST_SCORES, predictor.segmentor.protocol.max_scores),
    )
    name = entries.image.name
    labels_file = folder / f"{entries.image.stem}_labels.png"
    coco_file = labels_file.with_name(f"{entries.image.stem}_coco.json")
    FORMATS["labels"].write(labels_file, prediction)
    FORMATS["coco"].write(coco_file, words, [record(prediction, name, masks=True)])
    return Labelled(
        _shown(prediction),
        _legend(prediction),
        _heat(prediction),
        labels_file,
        coco_file,
    )


def legend_html(rows: Sequence[LegendRow]) -> str:
    """A table of the classes of an image; names may hold anything."""
    lines = [
        f'<tr><td><span class="swatch" style="background:{row.colour}"></span></td>'
        f"<td>{html.escape(row.name)}</td><td>{100 * row.share:.1f} %</td></tr>"
        for row in rows
    ]
    head = "<tr><th></th><th>class</th><th>share</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _legend(prediction: Prediction) -> tuple[LegendRow, ...]:
    colours = label_colours(prediction.words)
    ids = {name: index for index, name in enumerate(prediction.classes)}
    ids[UNKNOWN] = prediction.unknown_id
    return tuple(
        LegendRow(name, "#{:02x}{:02x}{:02x}".format(*colours[ids[name]]), share)
        for name, share in prediction.area.items()
    )


def _shown(prediction: Prediction) -> Prediction:
    size = _shown_size(prediction.labels.shape)
    nearest = _nearest(prediction.labels.shape, size)
    return Prediction(
        prediction.labels[nearest],
        prediction.scores[nearest],
        prediction.words,
        np.asarray(_resized(prediction.image, size)),
    )


def _heat(prediction: Prediction) -> dict[str, np.ndarray]:
    if prediction.class_scores is None:
        return {}
    rows, columns = _nearest(prediction.labels.shape, _shown_size(prediction.labels.shape))
    scores = prediction.class_scores[:, rows, columns]
    maps = np.rint(scores.clip(0, 1) * 255).astype(np.uint8)
    return dict(zip(prediction.words.vocabulary, maps, strict=True))


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that the page shows; enlarged by a whole number, so that pixels are even."""
    longer = max(size)
    if longer <= _MOST_PX:
        factor = max(1, _LEAST_PX // longer)
        return size[0] * factor, size[1] * factor
    return tuple(max(1, round(side * _MOST_PX / longer)) for side in size)


def _nearest(size: tuple[int, int], target: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Index of rows (h, 1) and of columns (w,) that resample a map of ``size`` to ``target``."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(size, target, strict=True)
    )
    return rows[:, None], columns


def _resized(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """An image (H, W, 3) at another size: smooth where it shrinks, in blocks where it grows."""
    method = Image.Resampling.BOX if size[0] < image.shape[0] else Image.Resampling.NEAREST
    return Image.fromarray(image).resize(size[::-1], method)
