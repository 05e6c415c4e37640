"""From entries to what the page shows, without a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.fake import FakePredictor
from zss_d2.errors import ZssError
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words
from zss_d2.web import labelling
from zss_d2.web.labelling import Entries, LegendRow


def save(path: Path, width: int = 40, height: int = 20) -> Path:
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def label(tmp_path: Path, predictor=None, image: Path | None = None, **entries):
    entries = {"words": "cat\ndog|hound  # a comment\n\n", **entries}
    image = image or save(tmp_path / "scene.png")
    return labelling.label(
        predictor or FakePredictor(), Entries(image, **entries), 10**6, tmp_path / "files"
    )


def test_the_legend_has_every_class_with_its_colour_and_share(tmp_path):
    cat, dog = label(tmp_path).legend
    colours = label_colours(Words.of(["cat", "dog|hound"]))
    assert cat == LegendRow("cat", "#" + bytes(colours[0]).hex(), 0.5)
    assert dog == LegendRow("dog", "#" + bytes(colours[1]).hex(), 0.5)


def test_background_comes_first_and_unknown_last(tmp_path):
    legend = label(tmp_path, background="sky\nwall", unknown_below=0.9).legend
    assert [row.name for row in legend] == ["background", "cat", "dog", "unknown"]
    # The right half is "wall", whose threshold is 0.
    assert [row.share for row in legend] == [0.5, 0.5, 0, 0]
    legend = label(tmp_path, unknown_below=0.9).legend
    assert [(row.name, row.share) for row in legend] == [("cat", 0.5), ("dog", 0), ("unknown", 0.5)]


def test_another_opacity_does_not_run_the_network(tmp_path):
    predictor = FakePredictor()
    labelled = label(tmp_path, predictor)
    bare, full = np.asarray(labelled.overlay(0)), np.asarray(labelled.overlay(1))
    assert (bare == 90).all()
    assert bytes(full[0, 0]).hex() == labelled.legend[0].colour[1:]
    assert bytes(full[-1, -1]).hex() == labelled.legend[1].colour[1:]
    assert len(predictor.calls) == 1


def test_the_seen_bias_reaches_the_model(tmp_path):
    predictor = FakePredictor()
    label(tmp_path, predictor, seen_bias=0.25)
    assert predictor.calls[0]["seen_bias"] == 0.25


def test_files_are_of_the_image_itself_and_called_after_it(tmp_path):
    image = save(tmp_path / "größe 1.png", width=3000, height=100)
    labelled = label(tmp_path, image=image)
    labels = np.asarray(Image.open(labelled.labels_file))
    assert labels.shape == (100, 3000)
    assert np.unique(labels[:, :1500]) == 0
    assert labelled.labels_file.name == "größe 1_labels.png"
    assert labelled.coco_file.name == "größe 1_coco.json"
    coco = json.loads(labelled.coco_file.read_text())
    assert coco["images"][0]["file_name"] == "größe 1.png"
    assert [x["name"] for x in coco["categories"]] == ["cat", "dog"]
    assert [x["area"] for x in coco["annotations"]] == [150_000, 150_000]


@pytest.mark.parametrize(
    ("size", "shown"),
    # width, height
    [((40, 20), (480, 240)), ((500, 400), (500, 400)), ((2560, 100), (1280, 50))],
)
def test_small_images_are_enlarged_and_large_ones_shrunk(tmp_path, size, shown):
    labelled = label(tmp_path, image=save(tmp_path / "x.png", *size))
    assert labelled.overlay(0.5).size == shown
    assert labelled.heat_map("cat").size == shown
    assert labelling.preview(np.zeros((size[1], size[0], 3), np.uint8)).size == shown
    labels = labelled.shown.labels
    assert (labels[:, : shown[0] // 2] == 0).all()
    assert (labels[:, shown[0] // 2 :] == 1).all()


def test_heat_maps_are_of_every_word_from_dark_to_bright(tmp_path):
    labelled = label(tmp_path, background="sky")
    assert [*labelled.heat] == ["cat", "dog", "sky"]
    assert labelled.heat["cat"][0, [0, -1]].tolist() == [255, 64]
    left, right = (np.asarray(labelled.heat_map("cat"))[0, x].sum() for x in (0, -1))
    assert left > 600 > 300 > right


def test_too_many_scores_for_heat_maps_are_not_asked_for(tmp_path):
    predictor = FakePredictor(max_scores=2 * 40 * 20 - 1)
    labelled = label(tmp_path, predictor)
    assert labelled.heat == {}
    assert not predictor.calls[0]["class_scores"]
    assert label(tmp_path, FakePredictor(max_scores=2 * 40 * 20)).heat


def test_names_of_classes_are_no_markup():
    text = labelling.legend_html([LegendRow("<b>&", "#000000", 1 / 3)])
    assert "<td>&lt;b&gt;&amp;</td><td>33.3 %</td>" in text
    assert "<b>" not in text


def test_more_pixels_than_allowed_are_found_before_decoding(tmp_path, monkeypatch):
    image = save(tmp_path / "large.png", width=300, height=200)
    assert labelling.read_upload(image, 60_000).shape == (200, 300, 3)
    monkeypatch.setattr(labelling, "load_image", None)
    with pytest.raises(ZssError, match=r"large.png has 300x200 px; .* up to 0.059999 megapixels"):
        labelling.read_upload(image, 59_999)


def test_images_that_are_none_are_named_without_their_folder(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    for path, message in (
        (None, "there is no image; upload one, or choose an example"),
        (broken, "broken.png: "),
        (tmp_path / "gone.png", "gone.png is no longer here; upload it again"),
    ):
        with pytest.raises(ZssError) as raised:
            labelling.read_upload(path, 10**6)
        assert str(raised.value).startswith(message)
        assert str(tmp_path) not in str(raised.value)


def test_words_that_are_wrong_are_found_before_the_image_is_read(tmp_path):
    for words, message in (
        ("", "there are no classes; give one word or more"),
        ("cat\ncat", "'cat' is given twice"),
        ("a\n" * 201, "there are 201 words; give up to 200"),
    ):
        with pytest.raises(ZssError, match=message):
            label(tmp_path, image=tmp_path / "no.png", words=words)


def test_the_seen_bias_is_a_number_or_nothing():
    assert labelling.read_bias(" ") is None
    assert labelling.read_bias("-0.5 ") == -0.5
    with pytest.raises(ZssError, match="the seen bias is 'much'; give a number, or nothing"):
        labelling.read_bias("much")
