"""Several images and their labels in one picture."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from zss_d2.drawing.legend import legend_strip
from zss_d2.errors import ZssError
from zss_d2.predict.options import OPACITY
from zss_d2.predict.overlay import legend_entries, overlay
from zss_d2.predict.result import Prediction, label_counts, shares_of

# Height of every row, px, and what lies between images.
HEIGHT, GAP = 288, 6
# Width of an image at most.
_WIDTH = 3 * HEIGHT


def sheet(
    predictions: Iterable[Prediction], columns: int = 2, opacity: float = OPACITY
) -> Image.Image:
    """Every image beside its labels in colour, with one legend below.

    Args:
        predictions: one or more, of the same words; none is kept.
        columns: pairs of image and labels beside each other.
        opacity: of the labels, 0..1.

    Returns:
        An RGB picture. The legend's shares are those of all images together.

    Raises:
        ZssError: there is no prediction.
    """
    pairs, counts, words = [], 0, None
    for prediction in predictions:
        words = prediction.words
        counts = counts + label_counts(prediction.labels, words)
        pairs.append(_pair(prediction, opacity))
    if words is None:
        raise ZssError("there is no prediction to draw; give one or more")
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    cell = max(pair.width for pair in pairs) + 2 * GAP
    legend = legend_strip(legend_entries(words, shares_of(counts, words)), columns * cell - 2 * GAP)
    size = max(columns * cell - 2 * GAP, legend.width), rows * (HEIGHT + GAP) + legend.height
    picture = Image.new("RGB", size, (255, 255, 255))
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        picture.paste(pair, (column * cell, row * (HEIGHT + GAP)))
    picture.paste(legend, (0, rows * (HEIGHT + GAP)))
    return picture


def _pair(prediction: Prediction, opacity: float) -> Image.Image:
    """The image and, beside it, its labels, as large as the row and `_WIDTH` allow."""
    height, width = prediction.labels.shape
    scale = min(HEIGHT / height, _WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # What is enlarged keeps its pixels.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    pair = Image.new("RGB", (2 * size[0] + GAP, HEIGHT), (255, 255, 255))
    for index, part in enumerate(
        (Image.fromarray(prediction.image), overlay(prediction, opacity, legend=False))
    ):
        pair.paste(part.resize(size, method), (index * (size[0] + GAP), 0))
    return pair
