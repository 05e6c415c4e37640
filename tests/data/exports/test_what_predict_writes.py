"""What `zss predict` writes for labelling tools comes back as the same labels."""

import numpy as np
import pytest

from tests.predict.made import random_prediction
from zss_d2.predict.formats import FORMATS, record
from zss_d2.predict.palette import hex_colours
from zss_d2.predict.words import Words

CLASSES = ("=1+1", 'a<b & "c", d\'e', "コップ", "Straße;x", "]]>", "back\\slash")
FILES = {
    "ä b/Ö, 1.jpg": (1, 1),
    "コップ/1 2.png": (3, 50),
    "a+b%20c&d=e.png": (31, 20),
    "=cmd.x.png": (7, 300),
    "plain.jpeg": (64, 64),
}


@pytest.fixture(params=["background", "no background", "16 bit"])
def words(request):
    if request.param == "16 bit":
        return Words.of([f"class {number}" for number in range(300)])
    background = ["sky"] if request.param == "background" else []
    return Words.of(CLASSES, background, unknown_below=0.5)


@pytest.fixture
def made(folder, words):
    predictions = {}
    # Many classes take long in images that are large.
    sizes = {file: size for file, size in FILES.items() if len(words.classes) < 9 or max(size) < 60}
    for file, (height, width) in sizes.items():
        folder.photo(file, width, height)
        predictions[file] = random_prediction(words, height, width)
    return predictions


@pytest.mark.parametrize("tool", ["coco", "labelstudio", "cvat"])
def test_labels_come_back_exactly(tool, folder, words, made):
    records = (record(result, file, masks=True) for file, result in made.items())
    written = FORMATS[tool].write(FORMATS[tool].path(folder.root / "labels"), words, records)
    sources = [path for path in written if path.suffix == ".xml" or path == written[0]]
    status, out, errors = folder.run(*sources, "--val", "0")
    assert (status, errors) == (0, [])
    classes = [wordings[0] for wordings in words.classes]
    found = folder.description()
    assert found["classes"] == classes
    masks, first = folder.masks(), int(words.label_ids[0])
    void = 255 if len(classes) < 256 else 65535
    for file, result in made.items():
        labels = result.labels.astype(int) - first
        expected = np.where((labels < 0) | (labels >= len(classes)), void, labels)
        name = file.rsplit(".", 1)[0].replace("/", "__")
        if (expected == void).all():
            assert name not in masks
        else:
            np.testing.assert_array_equal(masks[name], expected)
    if tool != "coco":
        hexes = {name: "#" + bytes(colour).hex() for name, colour in found["colors"].items()}
        assert hexes == hex_colours(words)
