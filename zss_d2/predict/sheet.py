"""Several images and their labels in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from zss_d2.drawing.legend import legend_strip
from zss_d2.errors import ZssError
from zss_d2.predict.overlay import legend_entries, overlay
from zss_d2.predict.result import Prediction

# Height of every image, px, and what lies between them.
HEIGHT, GAP = 288, 6


def sheet(predictions: Sequence[Prediction], columns: int = 2, opacity: float = 0.5) -> Image.Image:
    """Every image beside its labels in colour, with one legend below.

    Args:
        predictions: one or more, of the same words.
        columns: pairs of image and labels beside each other.
        opacity: of the labels, 0..1.

    Returns:
        An RGB picture. The legend's shares are those of all images together.

    Raises:
        ZssError: there is no prediction.
    """
    if not predictions:
        raise ZssError("there is no prediction to draw; give one or more")
    pairs = [_pair(prediction, opacity) for prediction in predictions]
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    cell = max(pair.width for pair in pairs) + 2 * GAP
    together = replace(
        predictions[0], labels=np.concatenate([x.labels.ravel() for x in predictions])[None]
    )
    legend = legend_strip(legend_entries(together), columns * cell - 2 * GAP)
    size = max(columns * cell - 2 * GAP, legend.width), rows * (HEIGHT + GAP) + legend.height
    picture = Image.new("RGB", size, (255, 255, 255))
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        picture.paste(pair, (column * cell, row * (HEIGHT + GAP)))
    picture.paste(legend, (0, rows * (HEIGHT + GAP)))
    return picture


def _pair(prediction: Prediction, opacity: float) -> Image.Image:
    """The image and, beside it, its labels, `HEIGHT` px high."""
    height, width = prediction.labels.shape
    size = max(1, round(width * HEIGHT / height)), HEIGHT
    # What is enlarged keeps its pixels.
    method = Image.Resampling.NEAREST if height < HEIGHT else Image.Resampling.LANCZOS
    pair = Image.new("RGB", (2 * size[0] + GAP, HEIGHT), (255, 255, 255))
    for index, part in enumerate(
        (Image.fromarray(prediction.image), overlay(prediction, opacity, legend=False))
    ):
        pair.paste(part.resize(size, method), (index * (size[0] + GAP), 0))
    return pair
