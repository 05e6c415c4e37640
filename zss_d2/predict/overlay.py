"""An image under its labels in colour, with a legend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from zss_d2.drawing.legend import LegendEntry, legend_strip, stripes
from zss_d2.drawing.lettering import class_labels
from zss_d2.errors import ZssError
from zss_d2.predict.options import OPACITY
from zss_d2.predict.palette import UNKNOWN_COLOUR, label_colours

if TYPE_CHECKING:
    from zss_d2.predict.result import Prediction
    from zss_d2.predict.words import Words

# Of unknown pixels, across their colour.
_STRIPE_COLOUR = (70, 70, 70)
# What the stripes and the borders of classes are of the longer edge.
_STRIPE_SHARE, _BORDER_SHARE = 1 / 100, 1 / 1000
# Longer edge, px, of a picture that has room for a legend.
_LEAST_EDGE = 480


def overlay(prediction: Prediction, opacity: float = OPACITY, legend: bool = True) -> Image.Image:
    """The image under its labels in colour, at its own resolution, with a legend below.

    Colours depend on the label ids alone: a class has one colour in all images of a collection.
    Borders of classes are stronger, background is darker, unknown pixels are striped, and those
    without data are left as they are. The legend has the classes that occur, in the order of the
    words, with their share of the image.

    With a legend, an image of less than half of 480 px is enlarged, every pixel to a square of
    pixels, so that there is room for letters, and a narrow one gets white at its sides. Without
    one the picture is as large as the image.

    Args:
        opacity: of the labels, 0 (the image alone) to 1 (the labels alone).
        legend: draw one.

    Returns:
        An RGB picture.

    Raises:
        ZssError: ``opacity`` is not within 0..1.
    """
    if not 0 <= opacity <= 1:
        raise ZssError(f"opacity is {opacity!r}; give a number from 0 to 1")
    painted = _painted(prediction, opacity)
    if not legend:
        return Image.fromarray(painted)
    factor = max(_LEAST_EDGE // max(painted.shape[:2]), 1)
    painted = painted.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = painted.shape[:2]
    strip = legend_strip(legend_entries(prediction.words, prediction.area), width)
    picture = Image.new("RGB", (strip.width, height + strip.height), (255, 255, 255))
    picture.paste(Image.fromarray(painted), ((strip.width - width) // 2, 0))
    picture.paste(strip, (0, height))
    return picture


def _painted(prediction: Prediction, opacity: float) -> np.ndarray:
    """The image (H, W, 3) uint8 under its labels."""
    image, labels, words = prediction.image, prediction.labels, prediction.words
    edge = max(labels.shape)
    colours = label_colours(words)[labels]
    if words.unknown_below:
        across = stripes(*labels.shape, max(round(edge * _STRIPE_SHARE), 2))
        colours[across & (labels == words.unknown_id)] = _STRIPE_COLOUR
    painted = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
    border = _borders(labels, max(round(edge * _BORDER_SHARE), 1))
    # Stronger than within, but nothing where nothing is to be seen of the labels.
    strength = opacity**0.5
    # In place and of 8 bit: where labels are scattered, a large image is all borders.
    cv2.copyTo(cv2.addWeighted(image, 1 - strength, colours, strength, 0), border, painted)
    cv2.copyTo(image, (labels == words.nodata_id).view(np.uint8), painted)
    return painted


def _borders(labels: np.ndarray, width: int) -> np.ndarray:
    """Where a label differs from its neighbour above or to the left, (H, W) uint8, 0 or 1."""
    border = np.zeros(labels.shape, np.uint8)
    border[1:] = labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return cv2.dilate(border, np.ones((width, width), np.uint8))


def legend_entries(words: Words, area: Mapping[str, float]) -> list[LegendEntry]:
    """The classes that occur, in the order of the words, then background and unknown.

    Args:
        area: as `Prediction.area`, of one image or of several together.
    """
    colours, names = label_colours(words), _class_labels(words.names)
    shares = list(area.values())
    first = len(words.names) - len(words.classes)
    # Background comes after the words.
    ids = [*range(first, len(words.names)), *range(first)]
    entries = [
        LegendEntry(names[label], _percent(shares[label]), tuple(colours[label].tolist()))
        for label in ids
        if shares[label]
    ]
    if shares[len(words.names) :] and shares[-1]:
        entries.append(LegendEntry("unknown", _percent(shares[-1]), UNKNOWN_COLOUR, _STRIPE_COLOUR))
    return entries


_class_labels = lru_cache(maxsize=8)(class_labels)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "<0.1 %"
