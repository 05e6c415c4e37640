"""The colour of every label id: one in all files and pictures of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zss_d2.data.spec.registry import given_colours
from zss_d2.drawing.colours import IGNORED, class_colours

if TYPE_CHECKING:
    from zss_d2.predict.words import Words

# None of these is ever the colour of a class.
BACKGROUND_COLOUR = (0, 0, 0)
UNKNOWN_COLOUR = tuple(round(255 * x) for x in IGNORED)
NODATA_COLOUR = (255, 255, 255)


def label_colours(words: Words) -> np.ndarray:
    """Colour of every label id, (unknown id + 1, 3) uint8, RGB; ids of nothing are black."""
    table = np.zeros((words.unknown_id + 1, 3), np.uint8)
    table[0] = BACKGROUND_COLOUR
    table[words.label_ids[: len(words.classes)]] = _colours_of(words)
    table[words.nodata_id] = NODATA_COLOUR
    table[words.unknown_id] = UNKNOWN_COLOUR
    return table


def _colours_of(words: Words) -> np.ndarray:
    """Colours (classes, 3) uint8: where a registered data set has a class of that name, its own."""
    names = [wordings[0] for wordings in words.classes]
    return np.round(255 * class_colours(names, given_colours())).astype(np.uint8)


def hex_colours(words: Words) -> dict[str, str]:
    """Colour of every class, such as ``#1f77b4``, by name and in the order of the words."""
    colours = _colours_of(words)
    names = (wordings[0] for wordings in words.classes)
    return {name: "#" + bytes(colour).hex() for name, colour in zip(names, colours, strict=True)}
