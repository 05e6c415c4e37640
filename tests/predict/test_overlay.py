import numpy as np
import pytest

from tests.predict.made import LABELS, prediction
from zss_d2.errors import ZssError
from zss_d2.predict.overlay import legend_entries
from zss_d2.predict.palette import hex_colours, label_colours
from zss_d2.predict.words import Words


def entries_of(result):
    return legend_entries(result.words, result.area)


def test_a_class_has_one_colour_whatever_else_is_asked_for():
    few, more = Words.of(["cat", "dog"]), Words.of(["cat", "dog", "cow"])
    behind = Words.of(["cat", "dog"], background=["sky"])
    np.testing.assert_array_equal(label_colours(few)[:2], label_colours(more)[:2])
    np.testing.assert_array_equal(label_colours(behind)[1:3], label_colours(more)[:2])
    assert label_colours(behind)[0].tolist() == [0, 0, 0]
    assert list(hex_colours(behind)) == ["cat", "dog"]
    assert bytes.fromhex(hex_colours(behind)["dog"][1:]) == label_colours(behind)[2].tobytes()


def test_what_is_no_class_looks_like_no_class():
    words = Words.of([f"class {index}" for index in range(200)], background=["sky"])
    table = label_colours(words)
    colours = {tuple(x) for x in table[[*range(201), 254, 255]].tolist()}
    assert len(colours) == 203
    many = Words.of([f"class {index}" for index in range(300)])
    assert label_colours(many).shape == (65536, 3)


def test_the_picture_is_the_image_where_nothing_is_painted():
    result = prediction()
    plain = np.asarray(result.overlay(opacity=0, legend=False))
    np.testing.assert_array_equal(plain, result.image)
    full = np.asarray(result.overlay(opacity=1, legend=False))
    colours = label_colours(result.words)
    for label in range(3):
        assert (full[label == LABELS] == colours[label]).all()
    # No data: the image as it is, however opaque the labels.
    np.testing.assert_array_equal(full[3, 4:], result.image[3, 4:])


def test_the_labels_are_as_opaque_as_asked_and_borders_more():
    result = prediction(Words.of(["cat", "dog"]), np.array([[0, 0, 0, 1, 1]], np.uint8))
    pixels = np.asarray(result.overlay(opacity=0.25, legend=False)).astype(float)
    colours = label_colours(result.words)
    inside = 0.75 * result.image[0, 1] + 0.25 * colours[0]
    border = 0.5 * result.image[0, 3] + 0.5 * colours[1]
    np.testing.assert_allclose(pixels[0, 1], inside, atol=1)
    np.testing.assert_allclose(pixels[0, 3], border, atol=1)


def test_unknown_pixels_are_striped():
    result = prediction(labels=np.full((20, 20), 255, np.uint8))
    pixels = np.asarray(result.overlay(opacity=1, legend=False)).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) == 2


def test_a_small_image_is_enlarged_for_its_legend_and_a_large_one_is_not():
    small = prediction()
    painted = np.asarray(small.overlay(legend=False))
    picture = np.asarray(small.overlay())
    height, width = (80 * x for x in LABELS.shape)  # 480 px at most
    np.testing.assert_array_equal(
        picture[:height, :width], painted.repeat(80, axis=0).repeat(80, axis=1)
    )
    large = prediction(labels=np.zeros((250, 300), np.uint8)).overlay()
    assert large.width == 300
    # As narrow as an image may be, the names can be read.
    narrow = prediction(labels=np.zeros((500, 2), np.uint8)).overlay()
    assert narrow.width > 60


def test_the_legend_has_what_occurs_in_the_order_of_the_words():
    entries = entries_of(prediction())
    assert [(x.name, x.note) for x in entries] == [
        ("cat", "29.2 %"),
        ("dog", "37.5 %"),
        ("cow", "12.5 %"),
        ("unknown", "12.5 %"),
    ]
    words = Words.of(["cat", "dog"], background=["sky"])
    labels = np.zeros((100, 100), np.uint8)
    labels[0, :4] = 1
    entries = entries_of(prediction(words, labels))
    assert [(x.name, x.note) for x in entries] == [("cat", "<0.1 %"), ("background", "100.0 %")]
    assert entries[0].colour == tuple(label_colours(words)[1])


def test_names_that_no_font_has_are_numbers_and_more_than_254_classes_are_drawn():
    words = Words.of([f"class {index}" for index in range(299)] + ["\U000e0fff"])
    labels = np.full((4, 4), 299, np.uint16)
    assert entries_of(prediction(words, labels))[0].name.startswith("class 299")
    assert prediction(words, labels).overlay().height > 480


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_an_opacity_that_is_none(opacity):
    with pytest.raises(ZssError, match="opacity is .*; give a number from 0 to 1"):
        prediction().overlay(opacity)
