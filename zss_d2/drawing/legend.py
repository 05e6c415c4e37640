"""A legend below an image, fast enough for one per image of a collection.

Matplotlib takes tens of milliseconds to lay out a figure; this draws the letters alone, in the
fonts that Matplotlib would take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFont

from zss_d2.drawing.lettering import font_runs

# Height of letters, px, and as a share of the width of the picture, so that it can be shown small.
_LEAST_LETTERS = 13
_LETTERS_SHARE = 1 / 64
# Height of capital letters, as a share of that of letters.
_CAPITALS = 0.72
_INK, _FAINT, _PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend: ``note`` stands behind the name, fainter; colours are RGB, 0..255.

    With a ``stripe`` the swatch is striped in that colour.
    """

    name: str
    note: str
    colour: tuple[int, int, int]
    stripe: tuple[int, int, int] | None = None


def stripes(height: int, width: int, thickness: int) -> np.ndarray:
    """Diagonal stripes (height, width) bool, ``thickness`` px wide along a row."""
    period = 2 * thickness
    row = np.arange(width + period) // thickness % 2 == 1
    # Each row is the one above, moved to the left.
    return sliding_window_view(row, width)[np.arange(height) % period]


def legend_strip(entries: Sequence[LegendEntry], width: int) -> Image.Image:
    """Entries in as many columns as there is room for, row by row, on white.

    The picture is ``width`` px wide, or as wide as the widest entry; letters grow with it.
    """
    letters = max(_LEAST_LETTERS, round(width * _LETTERS_SHARE))
    gap, line = letters // 2, round(1.5 * letters)
    swatch = letters + gap
    rooms = [
        swatch + _width(x.name, letters) + gap + _width(x.note, letters) + 2 * gap for x in entries
    ]
    columns = _columns(rooms, width - gap)
    rows = -(-len(entries) // len(columns))
    strip = Image.new("RGB", (max(width, gap + sum(columns)), rows * line + 2 * gap), _PAPER)
    draw = ImageDraw.Draw(strip)
    for index, entry in enumerate(entries):
        row, column = divmod(index, len(columns))
        x, y = gap + sum(columns[:column]), gap + row * line
        _swatch(strip, draw, x, y + (line - letters) // 2, entry, letters)
        base = y + (line + round(_CAPITALS * letters)) // 2
        x = _write(draw, x + swatch, base, entry.name, letters, _INK)
        _write(draw, x + gap, base, entry.note, letters, _FAINT)
    return strip


def _columns(rooms: Sequence[int], width: int) -> list[int]:
    """Widths of the most columns that entries of these widths fit in, row by row; one at least."""
    number = max(min(len(rooms), width // min(rooms, default=1)), 1)
    while True:
        columns = [max(rooms[index::number], default=0) for index in range(number)]
        if number == 1 or sum(columns) <= width:
            return columns
        number -= 1


def _swatch(
    strip: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, entry: LegendEntry, side: int
) -> None:
    square = (x, y, x + side - 1, y + side - 1)
    draw.rectangle(square, fill=entry.colour)
    if entry.stripe is not None:
        mask = Image.fromarray(np.uint8(255) * stripes(side, side, max(side // 4, 1)))
        strip.paste(entry.stripe, (x, y), mask)
    draw.rectangle(square, outline=_FAINT)


def _write(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, letters: int, colour: tuple[int, int, int]
) -> int:
    """Write a text on the base line ``y``; returns where it ends."""
    for font, piece, width in _pieces(text, letters):
        draw.text((x, y), piece, fill=colour, font=font, anchor="ls")
        x += width
    return x


def _width(text: str, letters: int) -> int:
    return sum(width for _, _, width in _pieces(text, letters))


@lru_cache(maxsize=4096)
def _pieces(text: str, letters: int) -> list[tuple[ImageFont.FreeTypeFont, str, int]]:
    """Pieces of a text, each with its font and its width, px."""
    fonts = [(_font(file, face, letters), piece) for file, face, piece in font_runs(text)]
    return [(font, piece, round(font.getlength(piece))) for font, piece in fonts]


@lru_cache(maxsize=64)
def _font(file: str, face: int, letters: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, letters, index=face)
