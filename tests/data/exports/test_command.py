"""`zss masks` from images to a data set: names, sizes, splits, going on, what is never touched."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.data.exports.test_shapes import drawn
from zss_d2.data.exports import dataset
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.prepare import check_command
from zss_d2.data.spec.custom import register_custom


def coco(images, classes=("cat", "sky"), category=1):
    """Images of (name, width, height), each with its left column annotated."""
    entries = [
        {"id": i, "file_name": n, "width": w, "height": h} for i, (n, w, h) in enumerate(images)
    ]
    corners = [[0, 0, 1, 0, 1, 2**10, 0, 2**10]]
    annotations = [
        {
            "id": i,
            "image_id": i,
            "category_id": category,
            "segmentation": [[*corners[0][:5], h, 0, h]],
        }
        for i, (_, _, h) in enumerate(images)
    ]
    categories = [{"id": i, "name": n} for i, n in enumerate(classes, 1)]
    return json.dumps({"images": entries, "categories": categories, "annotations": annotations})


def many(folder, write, count, **more):
    names = [f"i{number}.png" for number in range(count)]
    for name in names:
        folder.photo(name, 4, 3)
    return write("c.json", coco([(name, 4, 3) for name in names], **more))


def test_check_and_the_registered_data_set_take_it_as_it_is(folder, write, capsys):
    status, out, errors = folder.run(many(folder, write, 10), "--unseen", "sky", "--name", "farm_1")
    assert (status, errors) == (0, [])
    path = folder.output / "farm_1.yaml"
    assert out[-1] == f"{path} is ready; next: zss check {path}"
    assert out[-2] == "farm_1: 8 train, 2 val images; 10 masks written, 0 were up to date"
    assert check_command.main([str(path), "--workers", "1"]) == 0
    assert "everything is in order" in capsys.readouterr().out
    from detectron2.data import DatasetCatalog, MetadataCatalog

    register_custom([path])
    records = DatasetCatalog.get("zss_farm_1_train")
    metadata = MetadataCatalog.get("zss_farm_1_train")
    assert metadata.unseen_classes == ["sky"]
    labels = read_labels(records[0]["sem_seg_file_name"], metadata)
    np.testing.assert_array_equal(labels, np.where(drawn("#... #... #..."), 0, 255))


def test_more_than_255_classes_are_16_bit(folder, write):
    classes = [f"class {number}" for number in range(256)]
    source = many(folder, write, 2, classes=classes, category=256)
    folder.run(source, "--val", "0")
    assert folder.description()["ignore_label"] == 65535
    mask = folder.masks()["i0"]
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, np.where(drawn("#... #... #..."), 255, 65535))


NAMES = {
    # What the export says, and where it lies.
    "images/a/x.jpg": "a/x.jpg",
    "x.jpg": "x.jpg",
    "C:\\data\\b\\Straße 1.png": "b/Straße 1.png",
    unicodedata.normalize("NFD", "ä ö.png"): "deep/er/" + unicodedata.normalize("NFC", "ä ö.png"),
    "./b/../y.png": "b/../y.png",
    "same.png": "same.png",
    "same.jpg": "same.jpg",
}


def test_names_and_folders(folder, write):
    (folder.photos / "b").mkdir(parents=True)
    for place in NAMES.values():
        folder.photo(place, 4, 3)
    for hidden in (".hidden/x.jpg", "._x.jpg"):
        folder.photo(hidden, 4, 3)
    source = write("c.json", coco([(name, 4, 3) for name in NAMES]))
    status, out, errors = folder.run(source, "--val", "0.3")
    assert (status, errors) == (0, [])
    ids = {"a__x", "x", "b__Straße 1", "deep__er__ä ö", "y", "same_png", "same_jpg"}
    assert set(folder.masks()) == ids
    assert {*folder.listed("train"), *folder.listed("val")} == ids
    assert len(folder.listed("val")) == 2
    linked = (folder.output / "images/b__Straße 1.png").resolve()
    assert linked == (folder.photos / "b/Straße 1.png").resolve()
    assert check_command.main([str(folder.output / "out.yaml"), "--workers", "1"]) == 0
    # The lists are read again, blanks and all.
    before = folder.listed("val")
    assert folder.run(source, "--val", "0.3")[0] == 0
    assert folder.listed("val") == before


def test_images_that_are_unknown_ambiguous_or_of_another_size(folder, write):
    for place in ("a/x.png", "b/x.png", "c/y.png", "z.png"):
        folder.photo(place, 4, 3)
    names = [("x.png", 4, 3), ("d/y.png", 4, 3), ("z.png", 3, 4), ("new.png", 4, 3)]
    status, _, errors = folder.run(write("c.json", coco(names)))
    assert status == 2
    start = f"error: {folder.root / 'c.json'}: image "
    assert [line.removeprefix(start) for line in errors] == [
        f"x.png: 'x.png' may be 2 (a/x.png, b/x.png) in {folder.photos}; let --images name the "
        "folder of one",
        f"d/y.png: 'd/y.png' is not in {folder.photos}; add the image, or let --images name the "
        "folder that holds it",
        f"new.png: 'new.png' is not in {folder.photos}; add the image, or let --images name the "
        "folder that holds it",
        f"z.png: it is 3x4 px there, but {folder.photos / 'z.png'} is 4x3; give the image that was "
        "annotated",
    ]


def test_an_image_that_cannot_be_read(folder, write):
    folder.photo("x.png", 4, 3).write_bytes(b"no image")
    status, _, (line,) = folder.run(write("c.json", coco([("x.png", 4, 3)])))
    assert status == 2
    assert "x.png: unreadable image" in line


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_masks_fit_the_upright_image(folder, write, orientation, upright):
    """As the tool has shown it: turned by the EXIF data, or lying on its side."""
    folder.photo("x.jpg", 5, 3, orientation)
    swapped = orientation > 4
    size = (3, 5) if swapped and upright else (5, 3)
    status, out, errors = folder.run(write("c.json", coco([("x.jpg", *size)])), "--val", "0")
    assert (status, errors) == (0, [])
    first_column = np.arange(size[0]) == 0
    expected = np.broadcast_to(np.where(first_column, 0, 255), size[::-1]).astype(np.uint8)
    turned = swapped and not upright
    if turned:
        image = Image.fromarray(expected)
        image.getexif()[274] = orientation
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(folder.masks()["x"], expected)
    assert any("lying on their side" in line for line in out) == turned
    assert check_command.main([str(folder.output / "out.yaml"), "--workers", "1"]) == 0


def test_a_second_run_writes_what_has_changed(folder, write):
    source = many(folder, write, 6)
    folder.run(source)
    first = {path.name: path.stat().st_mtime_ns for path in folder.output.rglob("*.png")}
    val = folder.listed("val")
    data = json.loads(source.read_text())
    data["annotations"][2]["segmentation"] = [[0, 0, 4, 0, 4, 3, 0, 3]]
    os.unlink(folder.output / "masks/i4.png")
    for number in range(6, 30):
        name = f"i{number}.png"
        folder.photo(name, 4, 3)
        data["images"].append({"id": number, "file_name": name, "width": 4, "height": 3})
        data["annotations"].append({**data["annotations"][0], "image_id": number})
    source.write_text(json.dumps(data))
    status, out, _ = folder.run(source)
    assert status == 0
    assert "24 train, 6 val images; 26 masks written, 4 were up to date" in out[-2]
    assert (folder.masks()["i2"] == 0).all()
    assert set(val) < set(folder.listed("val"))
    assert not set(folder.listed("val")) & {f"i{n}" for n in range(6)} - set(val)
    masks = folder.output / "masks"
    for name in ("i0.png", "i1.png", "i3.png", "i5.png"):
        assert (masks / name).stat().st_mtime_ns == first[name]


def test_a_run_that_was_stopped_goes_on(folder, write, monkeypatch):
    source = many(folder, write, 5)
    write_mask, written = dataset.write_mask, []

    def stop(path, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_mask(path, *rest)

    monkeypatch.setattr(dataset, "write_mask", stop)
    assert folder.run(source)[0] == 130
    assert not list(folder.output.glob("*.yaml"))
    monkeypatch.setattr(dataset, "write_mask", write_mask)
    status, out, _ = folder.run(source)
    assert status == 0
    assert "2 masks written, 3 were up to date" in out[-2]


def test_several_processes_do_the_same(folder, write):
    source = many(folder, write, 20)
    folder.run(source)
    alone = folder.masks()
    from zss_d2.data.exports import command

    other = folder.root / "other"
    status = command.main(
        [str(source), "--images", str(folder.photos), "--output", str(other), "--workers", "2"]
    )
    assert status == 0
    for name in alone:
        path = folder.output / f"masks/{name}.png"
        assert path.read_bytes() == (other / f"masks/{name}.png").read_bytes()
    assert (other / "val.txt").read_text() == (folder.output / "val.txt").read_text()


def test_a_description_that_was_changed_is_kept_or_refused(folder, write):
    source = many(folder, write, 4)
    folder.run(source)
    path = folder.output / "out.yaml"
    edited = path.read_text().replace("unseen: []", "unseen: [sky]\nsynonyms: {cat: [kitten]}")
    path.write_text(edited)
    status, out, _ = folder.run(source)
    assert status == 0
    assert f"note: {path} was changed by hand and is kept as it is" in out
    assert path.read_text() == edited
    before = folder.masks()
    status, _, (line,) = folder.run(source, "--background", "ground")
    assert status == 2
    assert "was changed by hand, and the classes of the annotations are others now" in line
    np.testing.assert_equal(folder.masks(), before)
    path.write_text("name: other\n")
    status, _, (line,) = folder.run(source)
    assert status == 2
    assert "is no file of `zss masks`" in line


def test_images_without_annotations(folder, write):
    source = many(folder, write, 3)
    data = json.loads(source.read_text())
    data["annotations"] = data["annotations"][:2]
    source.write_text(json.dumps(data))
    folder.photo("extra.png", 4, 3)
    status, out, _ = folder.run(source, "--val", "0")
    assert status == 0
    assert folder.listed("train") == ["i0", "i1"]
    text = "\n".join(out)
    assert "note: 1 images have no annotation of a class and are left out" in text
    assert "note: 1 images of the folder are not in the export" in text
    assert "val" not in folder.description()["splits"]
    status, out, _ = folder.run(source, "--val", "0", "--background", "sky")
    assert folder.listed("train") == ["i0", "i1", "i2"]
    assert (folder.masks()["i2"] == 1).all()
    data["annotations"] = []
    source.write_text(json.dumps(data))
    status, _, (line,) = folder.run(source)
    assert status == 2
    assert "no image has an annotation" in line


def test_a_list_says_which_images_validate(folder, write):
    source = many(folder, write, 5)
    chosen = write("val.txt", "i1\n\nphotos/i3.png\ni4.png\n")
    status, _, _ = folder.run(source, "--val-list", chosen)
    assert status == 0
    assert folder.listed("val") == ["i1", "i3", "i4"]
    assert folder.listed("train") == ["i0", "i2"]
    folder.photo("extra.png", 4, 3)
    for text, message in (
        ("i1\nnone.png\n", "line 2: 'none.png' is not in"),
        ("extra.png\n", "line 1: 'extra.png' has no annotation"),
        ("\n", "the list is empty"),
    ):
        status, _, (line,) = folder.run(source, "--val-list", write("val.txt", text))
        assert status == 2
        assert message in line


OPTIONS = {
    ("--unseen", "ski"): "--unseen 'ski' is no class (did you mean 'sky'?); there are cat, sky",
    ("--unseen", "cat", "sky"): "--unseen names every class",
    ("--background", " "): "--background is empty",
    ("--name", "a b"): "--name 'a b' may hold only letters",
    ("--name", "voc"): "'voc' is a benchmark of the package",
    ("--val", "1"): "no number from 0 to 0.9",
    ("--val", "0.1", "--val-list", "x"): "not allowed with argument --val",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_are_wrong(options, folder, write):
    status, _, (line,) = folder.run(many(folder, write, 2), *options)
    assert status == 2
    assert OPTIONS[options] in line
    assert not (folder.output / "masks").exists()


def test_all_is_a_data_set_to_test_on(folder, write):
    assert folder.run(many(folder, write, 2), "--unseen", "all")[0] == 0
    assert folder.description()["unseen"] == "all"


def test_a_folder_with_other_files_is_refused(folder, write):
    """Its masks and lists could be originals."""
    source = many(folder, write, 3)
    own = write("out/masks/i0.png", "drawn by hand")
    status, _, (line,) = folder.run(source)
    assert status == 2
    assert f"--output {folder.output} holds other files, such as masks; name a new folder" in line
    assert own.read_text() == "drawn by hand"
    assert [path.name for path in folder.output.iterdir()] == ["masks"]


@pytest.mark.parametrize("copy", [True, False])
def test_originals_are_only_read(folder, write, copy):
    source = many(folder, write, 3)
    before = {path: path.read_bytes() for path in (*folder.photos.iterdir(), source)}
    assert folder.run(source, *(["--copy"] if copy else []))[0] == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (folder.output / "images/i0.png").is_symlink() != copy
    for photos, output in (
        (folder.photos, folder.photos),
        (folder.photos, folder.photos / "out"),
        (folder.output / "images", folder.output),
        (folder.output / "masks", folder.output),
    ):
        folder.photos, folder.output = photos, output
        status, _, (line,) = folder.run(source)
        assert status == 2
        assert "beside it" in line or "would be written over" in line
    assert {path: path.read_bytes() for path in before} == before
