"""One picture of several images."""

import numpy as np
import pytest
from PIL import Image

from zss_d2.errors import ZssError
from zss_d2.predict import sheet as module
from zss_d2.predict.overlay import overlay
from zss_d2.predict.result import Prediction
from zss_d2.predict.sheet import GAP, HEIGHT, sheet
from zss_d2.predict.words import Words

WORDS = Words.of(["cat", "dog"])


def prediction(height: int, width: int, label: int = 0) -> Prediction:
    labels = np.full((height, width), label, np.uint8)
    image = np.full((height, width, 3), 50 + 100 * label, np.uint8)
    return Prediction(labels, np.ones((height, width), np.float32), WORDS, image)


def test_images_lie_beside_their_labels():
    one, other = prediction(96, 96), prediction(96, 48, label=1)
    picture = np.asarray(sheet([one, other, one]))
    cell = 2 * HEIGHT + GAP + 2 * GAP
    assert (picture[:HEIGHT, :HEIGHT] == 50).all()
    painted = np.asarray(overlay(one, legend=False))[0, 0]
    assert (picture[:HEIGHT, HEIGHT + GAP : 2 * HEIGHT + GAP] == painted).all()
    assert (picture[:HEIGHT, cell : cell + HEIGHT // 2] == 150).all()
    # The third begins the second row; the legend is below.
    below = HEIGHT + GAP
    assert (picture[below : below + HEIGHT, :HEIGHT] == 50).all()
    assert (picture[below : below + HEIGHT, cell:] == 255).all()
    assert (picture[2 * below :] < 128).any()


def test_one_image_is_as_wide_as_it_is():
    assert sheet([prediction(96, 192)]).width >= 4 * HEIGHT + GAP


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1)])
def test_narrow_images_do_not_make_it_large(height, width):
    picture = sheet(iter([prediction(height, width)]))
    assert max(picture.size) <= 6 * HEIGHT + GAP
    assert np.asarray(picture)[0, 0].tolist() == [50, 50, 50]


def test_shares_are_those_of_all_images_together(monkeypatch):
    shown = []
    monkeypatch.setattr(
        module, "legend_strip", lambda entries, _: shown.extend(entries) or Image.new("RGB", (9, 9))
    )
    sheet([prediction(30, 10), prediction(10, 10, label=1)])
    assert [(entry.name, entry.note) for entry in shown] == [("cat", "75.0 %"), ("dog", "25.0 %")]


def test_nothing_cannot_be_drawn():
    with pytest.raises(ZssError, match="no prediction"):
        sheet([])
