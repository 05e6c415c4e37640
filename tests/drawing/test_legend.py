import numpy as np
import pytest

from zss_d2.drawing import legend
from zss_d2.drawing.legend import LegendEntry, legend_strip, stripes

RED, BLUE = (255, 0, 0), (0, 0, 255)


def swatches(strip, colour):
    """(x, y) of all pixels of a colour."""
    found = np.argwhere((np.asarray(strip) == colour).all(axis=-1))
    return {(x, y) for y, x in found.tolist()}


def test_every_entry_has_its_colour_and_ink_behind_it():
    strip = legend_strip([LegendEntry("cat", "12.0 %", RED), LegendEntry("dog", "", BLUE)], 300)
    pixels = np.asarray(strip)
    assert strip.width == 300
    red, blue = swatches(strip, RED), swatches(strip, BLUE)
    # One row: the second stands right of the first, at the same height.
    assert max(x for x, _ in red) < min(x for x, _ in blue)
    assert {y for _, y in red} == {y for _, y in blue}
    between = pixels[:, max(x for x, _ in red) + 3 : min(x for x, _ in blue) - 3]
    assert (between.min(axis=-1) < 100).any()


def test_as_many_columns_as_there_is_room_for():
    assert legend._columns([10, 40, 10, 20], 59) == [10, 40]
    assert legend._columns([10, 40, 10, 20], 80) == [10, 40, 10, 20]
    assert legend._columns([10, 10, 10], 30) == [10, 10, 10]
    assert legend._columns([50], 30) == [50]


def test_a_narrow_legend_is_as_wide_as_its_entry_and_letters_grow_with_the_width():
    entry = LegendEntry("a name that needs room", "100.0 %", RED)
    assert legend_strip([entry], 10).width > 150
    small, large = (legend_strip([entry], width) for width in (800, 6400))
    assert large.height / small.height == pytest.approx(100 / 13, rel=0.1)


def test_stripes_are_diagonal():
    assert stripes(3, 5, 1).astype(int).tolist() == [
        [0, 1, 0, 1, 0],
        [1, 0, 1, 0, 1],
        [0, 1, 0, 1, 0],
    ]
    assert stripes(3, 6, 2).astype(int).tolist() == [
        [0, 0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1, 1],
    ]


def test_no_entries_make_an_empty_strip():
    assert (np.asarray(legend_strip([], 50)) == 255).all()
