import numpy as np
import pytest

from zss_d2.drawing.colours import IGNORED, class_colours
from zss_d2.drawing.comparison import GAP, SIDE, compare

NAMES = ["cat", "dog", "sky"]


def colour(index: int | None) -> list[int]:
    rgb = IGNORED if index is None else class_colours(NAMES)[index]
    return (255 * np.array(rgb)).round().astype(int).tolist()


@pytest.mark.parametrize(("height", "width"), [(128, 256), (512, 256), (20, 40)])
def test_image_ground_truth_and_prediction_lie_beside_each_other(height, width):
    """The longer side is always the same; labels keep their colours, the rest is void."""
    image = np.full((height, width, 3), (10, 20, 30), np.uint8)
    truth = np.zeros((height, width), np.uint8)
    truth[:, width // 2 :] = 255
    predicted = np.full((height, width), 2)
    picture = compare(image, truth, predicted, NAMES, ["sky"])
    h, w = (round(side * SIDE / max(height, width)) for side in (height, width))
    assert picture.shape[0] > h
    assert picture.dtype == np.uint8
    middle, quarter = h // 2, w // 4
    assert picture[middle, quarter].tolist() == [10, 20, 30]
    second, third = w + GAP, 2 * (w + GAP)
    assert picture[middle, second + quarter].tolist() == colour(0)
    assert picture[middle, second + 3 * quarter].tolist() == colour(None)
    assert picture[middle, third + quarter].tolist() == colour(2)
    assert (picture[:h, w : w + GAP] == 255).all()


def test_the_legend_has_the_classes_that_are_there():
    image, truth = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), int)
    picture = compare(image, truth, truth, NAMES, [])
    legend = picture[64 * SIDE // 64 :].reshape(-1, 3).tolist()
    assert colour(0) in legend
    assert colour(None) in legend
    assert colour(1) not in legend
