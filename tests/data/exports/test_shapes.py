"""Outlines against masks drawn by hand, and decoders against pycocotools and slow references."""

from array import array

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.predict.test_formats_of_collections import brush_pixels
from zss_d2.data.exports.shapes import (
    Brush,
    Polygon,
    Runs,
    box,
    brush_values,
    coco_runs,
    ellipse,
    turned_about_centre,
)
from zss_d2.errors import ZssError
from zss_d2.predict.formats.labelstudio import brush_rle


def drawn(text):
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def test_a_box_is_its_pixels_and_is_cut_off_at_the_image():
    shape = box(1, 1, 3, 2)
    np.testing.assert_array_equal(shape.mask(4, 5), drawn("..... .###. .###. ....."))
    assert shape.area(4, 5) == 6
    over = box(3, -2, 4, 4)
    np.testing.assert_array_equal(over.mask(4, 5), drawn("...## ...## ..... ....."))
    assert over.overhang(4, 5) == 2
    np.testing.assert_array_equal(
        turned_about_centre(box(1, 2, 3, 1), 90).mask(5, 5),
        drawn("..... ..#.. ..#.. ..#.. ....."),
    )
    np.testing.assert_array_equal(
        box(3, 1, 3, 1, 90).mask(5, 5), drawn("..... ..#.. ..#.. ..#.. .....")
    )


def test_an_ellipse_has_the_pixels_whose_centres_are_in_it():
    rows, columns = np.mgrid[:60, :80] + 0.5
    x, y = (columns - 40) / 30, (rows - 25) / 12
    inside = x**2 + y**2 < 1
    assert (ellipse(40, 25, 30, 12).mask(60, 80) != inside).mean() < 0.01
    upright = ellipse(40, 25, 12, 20).mask(60, 80)
    np.testing.assert_array_equal(ellipse(40, 25, 20, 12, 90).mask(60, 80), upright)


def test_rings_are_joined():
    rings = ((0, 0, 2, 0, 2, 2, 0, 2), (1, 1, 4, 1, 4, 3, 1, 3))
    np.testing.assert_array_equal(Polygon.of(*rings).mask(4, 5), drawn("##... ####. .###. ....."))


@pytest.mark.parametrize(
    ("rings", "message"),
    [
        (((1, 1, 2, 2),), "4 coordinates; it needs 3 corners"),
        (((1, 1, 2, 2, 3),), "5 coordinates"),
        ((), "no corner"),
        (((1, 1, 2, 2, 1e9, 3),), "other image or scale|another image or scale"),
        (((1, 1, 2, 2, float("nan"), 3),), "another image or scale"),
    ],
)
def test_polygons_that_are_none(rings, message):
    with pytest.raises(ZssError, match=message):
        Polygon.of(*rings).area(10, 10)


def test_runs_by_row_and_by_column_in_a_box():
    runs = Runs.of([1, 2, 1, 2], box=(1, 0, 3, 2))
    np.testing.assert_array_equal(runs.mask(3, 5), drawn("..##. ..##. ....."))
    down = Runs.of([1, 2, 1, 2], box=(1, 0, 3, 2), by_column=True)
    np.testing.assert_array_equal(down.mask(3, 5), drawn("..##. .#.#. ....."))
    assert (runs.area(3, 5), down.area(3, 5)) == (4, 4)
    assert isinstance(runs.lengths, array)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"lengths": [3, 2]}, "5 px long, 5x3 are 15"),
        ({"lengths": [3, -2, 14]}, "damaged"),
        ({"lengths": [1, 3], "box": (3, 0, 2, 2)}, None),
        ({"lengths": [1, 3], "box": (4, 0, 2, 2)}, r"lies at \(4, 0\) with 2x2 px"),
        ({"lengths": [1, 3], "box": (-1, 0, 2, 2)}, "not within"),
        ({"lengths": [15], "size": (3, 5)}, "is of 3x5 px, its image of 5x3"),
    ],
)
def test_runs_that_do_not_fit(runs, message):
    if message is None:
        assert Runs.of(**runs).area(3, 5) == 3
        return
    with pytest.raises(ZssError, match=message):
        Runs.of(**runs).area(3, 5)
    with pytest.raises(ZssError, match=message):
        Runs.of(**runs).mask(3, 5)


def test_endless_runs():
    with pytest.raises(ZssError, match="longer than any image"):
        Runs.of([2**40])


@pytest.mark.parametrize("seed", range(5))
def test_compressed_runs_are_those_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53 + seed)) < rng.random((37, 1))
    mask[:, 10:40] = seed % 2
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = Runs.of(coco_runs(encoded["counts"].decode()), by_column=True)
    np.testing.assert_array_equal(runs.mask(*mask.shape), mask)


@pytest.mark.parametrize("text", ["garbage", "P", "0P", "~~~", "ü", " "])
def test_damaged_compressed_runs(text):
    with pytest.raises(ZssError, match=r"damaged|too early|px long|longer than any"):
        Runs.of(coco_runs(text), by_column=True).mask(4, 4)


@pytest.mark.parametrize("seed", range(4))
def test_brushes_come_back_as_by_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random((23, 300)) < rng.random((23, 1)) ** 3).astype(np.uint8)
    data = brush_rle(mask)
    np.testing.assert_array_equal(Brush(bytes(data)).mask(*mask.shape), mask == 1)
    np.testing.assert_array_equal(
        brush_values(bytes(data), mask.size * 4), brush_pixels(data).ravel()
    )


def test_a_brush_with_values_that_are_not_repeated():
    """The browser writes blocks of single values too; bits put together by hand."""
    blocks = [(0, [0, 0, 0, 255, 9, 9, 9, 127]), (1, [200] * 4), (0, [1, 2, 3, 128])]
    bits = f"{16:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    for repeated, values in blocks:
        bits += f"{repeated}{1:02b}{len(values) - 1:04b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if repeated else values))
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    np.testing.assert_array_equal(Brush(data).mask(2, 2), [[True, False], [True, True]])
    for damaged in (data[:-2], data[:3], b""):
        with pytest.raises(ZssError, match="too early"):
            Brush(damaged).mask(2, 2)
    with pytest.raises(ZssError, match="holds 16 values of 8 bits, and its image has 36"):
        Brush(data).mask(3, 3)
