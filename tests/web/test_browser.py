"""The page in a real browser, as a visitor uses it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import MASKCLIP, serve
from zss_d2 import load_model
from zss_d2.data.synthetic.mini import draw_scene
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCENE = ("green checked thing", "snow", "wood")
# Where to keep a picture of the page, for the docs.
SCREENSHOT = os.environ.get("ZSS_WEB_SCREENSHOT")


@pytest.fixture
def scene(tmp_path) -> Path:
    path = tmp_path / "scene ü.png"
    Image.fromarray(draw_scene("val", 7).image).save(path)
    return path


def test_an_image_is_labelled_with_words(served, browser, scene):
    browser.hosts_asked()
    browser.open(served.url)
    browser.upload(scene)
    browser.wait_for_upload()
    browser.write("\n".join(SCENE))
    browser.label()
    legend = browser.wait_for_legend(*SCENE)
    expected = load_model(MASKCLIP, device="cpu").predict(scene, SCENE)
    assert legend == {name: f"{100 * share:.1f} %" for name, share in expected.area.items()}
    assert min(expected.area.values()) > 0
    half = browser.picture("overlay")
    assert half.shape == (480, 480, 3)

    labels = np.asarray(Image.open(browser.download("download-labels", "scene ü_labels.png")))
    assert (labels == expected.labels).all()
    coco = json.loads(browser.download("download-coco", "scene ü_coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == [*SCENE]

    browser.set_opacity("1")
    enlarged = np.kron(labels, np.ones((5, 5), int))
    painted = label_colours(Words.of(SCENE))[enlarged]
    browser.wait(lambda: (browser.picture("overlay") == painted).all())

    browser.one("#heat button").click()
    browser.one("#heat-word input").click()
    browser.wait(lambda: browser.texts("[role=option]") == [*SCENE])
    browser.all("[role=option]")[1].click()
    heat = browser.picture("heat-map").sum(axis=2, dtype=int)
    assert heat[enlarged == 1].mean() > 2 * heat[enlarged == 0].mean()
    browser.set_opacity("0.5")
    browser.wait(lambda: (browser.picture("overlay") == half).all())
    if SCREENSHOT:
        browser.keep_screenshot(SCREENSHOT)
    assert browser.hosts_asked() == {urlsplit(served.url).netloc}


def test_a_word_that_the_model_does_not_know_is_a_message_on_the_page(served, browser, scene):
    browser.open(served.url)
    browser.label()
    browser.wait_for_message("there are no classes; give one word or more")
    browser.write("tile\n<img src=x onerror=alert(1)>banana")
    browser.label()
    browser.wait_for_message("there is no image; upload one, or choose an example")
    browser.upload(scene)
    browser.wait_for_upload()
    browser.label()
    browser.wait_for_message("does not know the word '<' of '<img src=x onerror=alert(1)>banana'")
    browser.write("tile")
    browser.label()
    assert browser.wait_for_legend("tile") == {"tile": "100.0 %"}


def test_an_example_brings_its_words(served, browser):
    browser.open(served.url)
    browser.one("#examples button").click()
    browser.wait(lambda: browser.one("#words textarea").get_attribute("value"))
    words = browser.one("#words textarea").get_attribute("value").splitlines()
    browser.write("lava", part="background")
    browser.label()
    browser.wait_for_legend("background", *words)


def test_images_that_cannot_be_taken_are_messages(served, browser, tmp_path):
    browser.open(served.url)
    text, large, heavy = (tmp_path / f"{name}.png" for name in ("text", "large", "heavy"))
    text.write_text("no image")
    Image.new("RGB", (400, 300)).save(large)
    heavy.write_bytes(bytes(2**19 + 1))
    for path, message in (
        (text, "text.png: unreadable image"),
        (large, "large.png has 400x300 px; give an image of up to 0.1 megapixels"),
        (heavy, "exceed the maximum allowed size"),
    ):
        browser.upload(path)
        browser.wait_for_message(message)


def test_two_visitors_see_each_their_own(served, browser, scene):
    first = browser.open(served.url)
    browser.upload(scene)
    browser.wait_for_upload()
    browser.write("tile")
    browser.label()
    browser.wait_for_legend("tile")
    second = browser.open(served.url)
    assert browser.legend() == {}
    assert not browser.all("#overlay img")
    browser.upload(scene)
    browser.wait_for_upload()
    browser.write("\n".join(SCENE))
    browser.label()
    browser.wait_for_legend(*SCENE)
    browser.switch(first)
    browser.set_opacity("1")
    browser.wait(lambda: len(np.unique(browser.picture("overlay").reshape(-1, 3), axis=0)) == 1)
    browser.switch(second)
    browser.set_opacity("1")
    browser.wait(lambda: len(np.unique(browser.picture("overlay").reshape(-1, 3), axis=0)) == 3)


# The network waits for a file; one visitor may wait.
BUSY = """
import time
from pathlib import Path
from zss_d2.web import labelling
label = labelling.label
def slow(*arguments):
    while not Path("go").exists():
        time.sleep(0.05)
    return label(*arguments)
labelling.label = slow
import zss_d2.web.page
zss_d2.web.page.MOST_WAITING = 1
"""


def test_a_long_queue_says_so(browser, tmp_path, scene):
    with serve(tmp_path, before=BUSY) as served:
        windows = []
        for number in range(3):
            windows.append(browser.open(served.url))
            browser.upload(scene)
            browser.wait_for_upload()
            browser.write("tile")
            browser.label()
            if number == 0:
                browser.wait(lambda: "processing" in browser.one("#overlay").text)
            elif number == 1:
                browser.wait(lambda: "queue" in browser.one("#overlay").text)
        browser.wait_for_message("currently busy")
        (tmp_path / "go").touch()
        for window in windows[:2]:
            browser.switch(window)
            browser.wait_for_legend("tile")
