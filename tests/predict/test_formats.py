"""Files of one image, and what records hold, against numbers that were counted by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.predict.made import LABELS, prediction, random_prediction
from zss_d2.errors import ZssError
from zss_d2.predict.formats import FORMATS, collection_formats, image_formats, record
from zss_d2.predict.formats import records as records_module
from zss_d2.predict.formats.records import decoded, run_lengths
from zss_d2.predict.palette import label_colours
from zss_d2.predict.words import Words
from zss_d2.utils.writing import WriteError


def test_area_is_the_share_of_every_class_and_of_what_is_unknown():
    assert prediction().area == {
        "cat": 7 / 24,
        "dog": 9 / 24,
        "cow": 3 / 24,
        "horse": 0,
        "unknown": 3 / 24,
    }
    assert "unknown" not in prediction(Words.of(["a", "b", "c"])).area


def test_annotations_have_the_boxes_areas_and_scores_that_were_counted():
    found = prediction().to_coco()
    assert [(x["category_id"], x["area"], x["bbox"]) for x in found] == [
        (0, 7, [0, 0, 3, 4]),
        (1, 9, [1, 0, 3, 4]),
        (2, 3, [4, 0, 2, 2]),
    ]
    # Pixels 0, 1, 6, 12, 18, 19, 20 in reading order, and so on, a hundredth each.
    sums = [0 + 1 + 6 + 12 + 18 + 19 + 20, 2 + 3 + 7 + 8 + 9 + 13 + 14 + 15 + 21, 4 + 5 + 10]
    scores = [sums[0] / 700, sums[1] / 900, sums[2] / 300]
    assert [x["score"] for x in found] == pytest.approx(scores, abs=1e-6)
    for annotation in found:
        np.testing.assert_array_equal(decoded(annotation), annotation["category_id"] == LABELS)


def test_background_has_no_annotation_and_classes_keep_their_ids():
    found = prediction(Words.of(["dog", "cow"], background=["sky"])).to_coco()
    assert [x["category_id"] for x in found] == [1, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (40, 37), (5, 700)])
def test_masks_are_those_of_pycocotools(shape, monkeypatch):
    words = Words.of(["cat", "dog"], unknown_below=0.5)
    found = {x["category_id"]: x for x in random_prediction(words, *shape).to_coco()}
    labels = random_prediction(words, *shape).labels
    for label in range(2):
        mask = np.asfortranarray(labels == label, np.uint8)
        if not mask.any():
            assert label not in found
            continue
        expected = coco_mask.encode(mask)
        assert found[label]["segmentation"]["counts"] == expected["counts"].decode()
        assert found[label]["bbox"] == coco_mask.toBbox(expected).tolist()
    monkeypatch.setattr(records_module, "_COLUMNS", 3)
    assert random_prediction(words, *shape).to_coco() == list(found.values())


def test_a_label_that_fills_the_image_is_one_run_across_all_columns(monkeypatch):
    monkeypatch.setattr(records_module, "_COLUMNS", 2)
    (only,) = prediction(labels=np.zeros((3, 5), np.uint8)).to_coco()
    assert only["bbox"] == [0, 0, 5, 3]
    assert decoded(only).all()


def test_runs_of_a_mask_go_row_by_row_and_begin_outside():
    assert run_lengths(np.array([[0, 1, 1], [1, 0, 0]])).tolist() == [1, 3, 2]
    assert run_lengths(np.array([[1, 1], [0, 1]])).tolist() == [0, 2, 1, 1]


def test_a_record_is_json_with_masks_or_without():
    with_masks, without = (record(prediction(), "a/b.jpg", masks) for masks in (True, False))
    annotations = with_masks.pop("annotations")
    assert with_masks == without == json.loads(json.dumps(without))
    assert annotations == json.loads(json.dumps(prediction().to_coco()))
    assert (without["file_name"], without["width"], without["height"]) == ("a/b.jpg", 6, 4)


def test_labels_are_a_png_whose_values_are_the_ids(tmp_path):
    result = prediction()
    FORMATS["labels"].write(tmp_path / "x.png", result)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), LABELS)
        colours = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colours, label_colours(result.words)[LABELS])


def test_labels_of_many_classes_have_16_bit(tmp_path):
    words = Words.of([f"class {index}" for index in range(300)], unknown_below=0.5)
    result = random_prediction(words, 20, 30)
    FORMATS["labels"].write(tmp_path / "x.png", result)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode.startswith("I")
        np.testing.assert_array_equal(np.asarray(image), result.labels)
    assert result.labels.max() == 65535


def test_overlays_are_what_the_method_draws(tmp_path):
    result = prediction()
    FORMATS["overlay"].write(tmp_path / "x.png", result, opacity=0.2, legend=False)
    FORMATS["overlay-jpg"].write(tmp_path / "x.jpg", result, opacity=0.2, legend=False)
    expected = np.asarray(result.overlay(0.2, legend=False))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), expected)
    with Image.open(tmp_path / "x.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (6, 4))


def test_an_overlay_that_jpeg_cannot_hold(tmp_path):
    result = prediction(labels=np.zeros((1, 65501), np.uint8))
    with pytest.raises(ZssError, match="65501 x 1 px, .*65500 at most; ask for the format overlay"):
        FORMATS["overlay-jpg"].write(tmp_path / "x.jpg", result, legend=False)
    assert list(tmp_path.iterdir()) == []


def test_arrays_need_no_pickle_and_name_their_rows(tmp_path):
    words = Words.of(["cat", "dog|hound"], background=["sky", "wall"])
    result = prediction(words)
    FORMATS["npz"].write(tmp_path / "x.npz", result)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"labels", "scores", "classes", "unknown_id", "nodata_id"}
        np.testing.assert_array_equal(arrays["labels"], LABELS)
        np.testing.assert_array_equal(arrays["scores"], result.scores)
        assert arrays["classes"].tolist() == ["background", "cat", "dog"]
        assert (arrays["unknown_id"], arrays["nodata_id"]) == (255, 254)
    kept = type(result)(
        result.labels, result.scores, words, result.image, np.full((4, 4, 6), 0.3, np.float32)
    )
    FORMATS["npz"].write(tmp_path / "x.npz", kept)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays["class_scores"].dtype == np.float16
        assert arrays["class_scores"].shape == (4, 4, 6)
        assert arrays["words"].tolist() == ["cat", "dog", "sky", "wall"]


def test_saving_lays_files_out_and_does_not_mix_images(tmp_path):
    first = prediction().save(tmp_path, list(FORMATS), "trip/img.v2")
    prediction().save(tmp_path, ["coco"], "trip/other")
    assert [path.relative_to(tmp_path).as_posix() for path in first] == [
        "labels/trip/img.v2.png",
        "overlay/trip/img.v2.png",
        "overlay/trip/img.v2.jpg",
        "npz/trip/img.v2.npz",
        "coco/trip/img.v2.json",
        "labelstudio/trip/img.v2.json",
        "labelstudio/trip/img.v2.xml",
        "cvat/trip/img.v2.xml",
        "cvat/trip/img.v2_labels.json",
        "areas/trip/img.v2.csv",
    ]
    assert all(path.stat().st_size for path in first)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(first) + 1
    images = json.loads((tmp_path / "coco/trip/img.v2.json").read_text())["images"]
    assert [x["file_name"] for x in images] == ["trip/img.v2"]
    assert [path.name for path in prediction().save(tmp_path)] == ["image.png"] * 2


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../../b"])
def test_a_name_that_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(ZssError, match="stays within the folder"):
        prediction().save(tmp_path / "out", ["labels"], name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_format_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ZssError, match="'bmp' is no format; give some of labels, overlay, .*csv"):
        prediction().save(tmp_path, ["labels", "bmp"])
    with pytest.raises(ZssError, match="there are no formats; give one or more of labels"):
        prediction().save(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert list(image_formats("labels")) == ["labels"]
    assert list(collection_formats(["csv", "labels", "csv"])) == ["csv"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(WriteError, match="labels is a file where a folder is needed"):
        prediction().save(tmp_path, ["labels"])


def test_asking_for_the_names_of_formats_loads_nothing_heavy():
    heavy = "{'torch', 'cv2', 'matplotlib', 'pycocotools'}"
    code = f"import sys, zss_d2.predict.formats; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n"
