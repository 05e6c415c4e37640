"""Files about all images: what was written is read back by slow references of their own."""

import csv
import json
import tracemalloc
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.predict.made import LABELS, prediction, random_prediction
from zss_d2.errors import ZssError
from zss_d2.predict.formats import FORMATS, record
from zss_d2.predict.formats.labelstudio import brush_rle
from zss_d2.predict.palette import hex_colours
from zss_d2.predict.words import Words

# What files and classes may be called, and formats could stumble over.
HOSTILE = ("=1+1", 'a<b & "c", d\'e', "コップ", "Straße;x", "]]>", "back\\slash")
FILES = ("a <b>&\"c',/ö.jpg", "コップ/1 2.png", "=cmd.png", "line\nbreak.png", "bell\x07\udcff.png")
WORDS = Words.of(HOSTILE, background=["sky"], unknown_below=0.5)
JOINT = ("coco", "labelstudio", "cvat", "csv")


@pytest.fixture(scope="module")
def made():
    """Predictions of images, by the names of their files."""
    sizes = ((1, 1), (3, 50), (31, 20), (7, 300), (64, 64))
    return {file: random_prediction(WORDS, *size) for file, size in zip(FILES, sizes, strict=True)}


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """The folder with all files, written from records that can be read once."""
    folder = tmp_path_factory.mktemp("written")
    for name in JOINT:
        records = (record(result, file, masks=True) for file, result in made.items())
        FORMATS[name].write(FORMATS[name].path(folder), WORDS, records)
    return folder


def classes_of(labels):
    """Labels with everything that has no mask set to 0."""
    return np.where(labels > len(HOSTILE), 0, labels)


def test_coco_is_read_by_pycocotools_and_holds_the_labels(made, written):
    coco = COCO(str(written / "coco.json"))
    assert [x["name"] for x in coco.loadCats(coco.getCatIds())] == list(HOSTILE)
    assert coco.getCatIds() == list(range(1, len(HOSTILE) + 1))
    images = coco.loadImgs(coco.getImgIds())
    assert [x["file_name"] for x in images] == list(FILES)
    for image in images:
        labels = made[image["file_name"]].labels
        assert (image["height"], image["width"]) == labels.shape
        found = np.zeros(labels.shape, int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            found += annotation["category_id"] * coco.annToMask(annotation)
        np.testing.assert_array_equal(found, classes_of(labels))
    assert len(set(coco.getAnnIds())) == len(coco.dataset["annotations"])


def brush_pixels(rle):
    """What a Label Studio brush holds: bit by bit, as its format is described."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def take(number):
        nonlocal at
        at += number
        return int(bits[at - number : at], 2)

    size, width = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < size:
        is_run = take(1)
        count = 1 + take(lengths[take(2)])
        values += [take(width)] * count if is_run else [take(width) for _ in range(count)]
    assert len(values) == size
    assert len(bits) - at < 8
    return np.array(values).reshape(-1, 4)


def test_label_studio_holds_the_labels(made, written):
    tasks = json.loads((written / "labelstudio.json").read_text())
    for task, file in zip(tasks, FILES, strict=True):
        labels = made[file].labels
        start, address = task["data"]["image"].split("images/", 1)
        assert start == "/data/local-files/?d="
        assert unquote(address, errors="surrogateescape") == file
        assert not set(address) & set(" <>&\"'\n?#")
        found = np.zeros(labels.shape, int)
        for region in task["predictions"][0]["result"]:
            assert (region["original_height"], region["original_width"]) == labels.shape
            assert region["type"] == "brushlabels"
            pixels = brush_pixels(region["value"]["rle"])
            assert (pixels == pixels[:, :1]).all()
            (name,) = region["value"]["brushlabels"]
            inside = (pixels[:, 3] == 255).reshape(labels.shape)
            assert set(np.unique(pixels)) <= {0, 255}
            found += (HOSTILE.index(name) + 1) * inside
        np.testing.assert_array_equal(found, classes_of(labels))


def test_the_labelling_interface_has_the_names_that_the_tasks_refer_to(written):
    view = ElementTree.parse(written / "labelstudio.xml").getroot()
    control, image = view.find("BrushLabels"), view.find("Image")
    assert {x.get("value"): x.get("background") for x in control} == hex_colours(WORDS)
    assert (control.get("toName"), image.get("value")) == (image.get("name"), "$image")
    tasks = json.loads((written / "labelstudio.json").read_text())
    region = tasks[-1]["predictions"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == (control.get("name"), image.get("name"))


@pytest.mark.parametrize("pixels", [1, 2, 4, 5, 64, 65, 1024, 1025, 16384, 16385, 40000])
@pytest.mark.parametrize("inside", [0, 1])
def test_brush_runs_of_every_length(pixels, inside):
    mask = np.zeros((1, pixels + 1), np.uint8)
    mask[0, :-1] = inside
    mask[0, -1] = 1 - inside
    np.testing.assert_array_equal(brush_pixels(brush_rle(mask))[:, 3] == 255, mask[0] == 1)


def test_a_brush_that_its_format_cannot_count():
    endless = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (2**15, 2**15), (0, 0))
    with pytest.raises(ZssError, match="32768 x 32768 px, and .* leave the format labelstudio out"):
        brush_rle(endless)


def test_cvat_holds_the_labels(made, written):
    root = ElementTree.parse(written / "cvat.xml").getroot()
    assert root.findtext("version") == "1.1"
    labels = {x.findtext("name"): x.findtext("color") for x in root.iter("label")}
    assert labels == hex_colours(WORDS)
    listed = json.loads((written / "cvat_labels.json").read_text())
    assert {x["name"]: x["color"] for x in listed} == labels
    assert {x["type"] for x in listed} == {"mask"}
    images = root.findall("image")
    # What XML cannot hold is escaped.
    assert [x.get("name") for x in images] == [*FILES[:4], "bell\\x07\\udcff.png"]
    for image, result in zip(images, made.values(), strict=True):
        found = np.zeros(result.labels.shape, int)
        assert (int(image.get("height")), int(image.get("width"))) == found.shape
        for mask in image.findall("mask"):
            left, top, width, height = (
                int(mask.get(key)) for key in ("left", "top", "width", "height")
            )
            values, inside = [], 0
            for length in mask.get("rle").split(","):
                values += int(length) * [inside]
                inside = 1 - inside
            box = np.array(values).reshape(height, width)
            # The box is no larger than what is in it.
            assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
            label = HOSTILE.index(mask.get("label")) + 1
            found[top : top + height, left : left + width] += label * box
        np.testing.assert_array_equal(found, classes_of(result.labels))


def test_the_table_has_percents_and_no_formulas(made, written):
    content = (written / "areas.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(content.decode("utf-8-sig").splitlines(keepends=True)))
    assert rows[0][:5] == ["image", "width", "height", "background %", "'=1+1 %"]
    assert rows[0][-1] == "unknown %"
    assert [row[0] for row in rows[1:]] == [
        *FILES[:2],
        "'=cmd.png",
        FILES[3],
        "bell\x07\\udcff.png",
    ]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    for row, result in zip(rows[1:], made.values(), strict=True):
        shares = [float(x) / 100 for x in row[3:]]
        assert shares == pytest.approx(list(result.area.values()), abs=1e-6)


def test_the_table_of_what_was_counted_by_hand(tmp_path):
    path = tmp_path / "areas.csv"
    FORMATS["csv"].write(path, prediction().words, [record(prediction(), "a.jpg", masks=False)])
    assert path.read_bytes().decode("utf-8-sig") == (
        "image,width,height,cat %,dog %,cow %,horse %,unknown %\r\n"
        "a.jpg,6,4,29.1667,37.5000,12.5000,0.0000,12.5000\r\n"
    )


@pytest.mark.parametrize("name", JOINT)
def test_no_image_at_all_is_a_file_that_can_be_read(tmp_path, name):
    words = prediction().words
    path = FORMATS[name].path(tmp_path)
    FORMATS[name].write(path, words, iter(()))
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        assert (content["images"] if name == "coco" else content) == []
    elif path.suffix == ".xml":
        assert ElementTree.parse(path).findall("image") == []
    else:
        assert path.read_text("utf-8-sig").startswith("image,width,height,cat %")


@pytest.mark.parametrize("name", JOINT)
def test_a_collection_is_never_held_in_memory(tmp_path, name):
    one = record(random_prediction(WORDS, 40, 40), "a.jpg", masks=True)
    path = FORMATS[name].path(tmp_path)
    FORMATS[name].write(path, WORDS, [one])  # what is loaded or remembered once
    tracemalloc.start()
    # Of each record a copy, with something that weighs 20 kB: 1.6 MB if they were kept.
    records = ({**one, "file_name": f"{i}.jpg", "more": bytearray(20_000)} for i in range(80))
    FORMATS[name].write(path, WORDS, records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000


@pytest.mark.parametrize("name", JOINT)
def test_what_was_there_stays_if_records_end_in_an_error(tmp_path, name):
    def broken():
        yield record(prediction(), "a.jpg", masks=True)
        raise ZssError("the records are damaged")

    path = FORMATS[name].path(tmp_path)
    path.write_text("as it was")
    with pytest.raises(ZssError, match="damaged"):
        FORMATS[name].write(path, prediction().words, broken())
    assert path.read_text() == "as it was"
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_the_labels_that_were_counted_by_hand_in_cvat(tmp_path):
    path = tmp_path / "cvat.xml"
    FORMATS["cvat"].write(path, prediction().words, [record(prediction(), "a.jpg", masks=True)])
    masks = {x.get("label"): x for x in ElementTree.parse(path).iter("mask")}
    assert list(masks) == ["cat", "dog", "cow"]
    # cow: both pixels of the first row of its box, then the left one of the second.
    assert masks["cow"].get("rle") == "0, 3, 1"
    assert [masks["cow"].get(x) for x in ("left", "top", "width", "height")] == list("4022")
    assert LABELS[:2, 4:].tolist() == [[2, 2], [2, 255]]
