"""Exports as the tools write them, with masks drawn by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.exports.test_shapes import drawn
from zss_d2.data.exports import recognise
from zss_d2.errors import ZssError
from zss_d2.predict.formats.labelstudio import brush_rle


def square(left, top, side):
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def coco(annotations, **more):
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": "x.png", "width": 6, "height": 4}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "sky"}],
            "annotations": [{"id": i, "image_id": 7, **a} for i, a in enumerate(annotations)],
            **more,
        }
    )


def ids(text, names=".#o"):
    """255, 0, 1 where a drawing has the first, second and third letter."""
    return np.array([[(255, 0, 1)[names.index(x)] for x in line] for line in text.split()])


def test_coco_paints_the_larger_first_and_leaves_crowds_and_boxes_void(folder, write):
    folder.photo("x.png", 6, 4)
    annotations = [
        {"category_id": 3, "segmentation": [square(1, 1, 1)]},
        {"category_id": 1, "segmentation": [square(0, 0, 4)]},
        # 2 x 4 px at the right, by columns; and a crowd over what is left of it.
        {"category_id": 3, "segmentation": {"size": [4, 6], "counts": [16, 8]}},
        {"category_id": 1, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [0, 24]}},
        {"category_id": 1, "bbox": [0, 0, 6, 4], "segmentation": []},
    ]
    status, out, errors = folder.run(write("coco.json", coco(annotations)), "--val", "0")
    assert (status, errors) == (0, [])
    assert folder.description()["classes"] == ["cat", "sky"]
    np.testing.assert_array_equal(folder.masks()["x"], ids("oooo## o#oo## oooo## oooo##"))
    assert "coco.json: COCO, 1 images, 2 classes: cat, sky" in out[0]
    assert any("1 annotations are boxes without an outline" in line for line in out)
    # Where only the crowd is, and the box, nothing is said about the class.
    status, _, errors = folder.run(
        write("coco.json", coco(annotations[3:] + annotations[:1])), "--val", "0"
    )
    np.testing.assert_array_equal(folder.masks()["x"], ids("...... .#.... ...... ......"))


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels>
<label><name>wall</name><color>#0a141e</color><type>any</type>
<attributes><attribute><name>age</name><mutable>False</mutable></attribute></attributes></label>
<label><name>Tür, offen</name><color>#ff0000</color></label>
<label><name>knee</name><type>points</type><parent>person</parent></label>
</labels></job></meta>
<image id="0" name="x.png" width="6" height="4">{}</image>
</annotations>"""


def test_cvat_paints_by_z_order_and_then_as_written(folder, write):
    folder.photo("x.png", 6, 4)
    shapes = """
    <mask label="wall" rle="0, 2, 1, 3" left="1" top="1" width="3" height="2" z_order="2"/>
    <polygon label="wall" points="0,0;6,0;6,2;0,2" z_order="1"><attribute name="age">3</attribute>
    </polygon>
    <polygon label="Tür, offen" points="4.00,0.00;6.00,0.00;6.00,4.00;4.00,4.00" z_order="1"/>
    <box label="wall" xtl="0" ytl="0" xbr="6" ybr="4" z_order="9"/>
    <tag label="wall"/><points label="wall" points="1,1" z_order="0"/>
    <ellipse label="Tür, offen" cx="0.5" cy="3.5" rx="0.5" ry="0.5" z_order="0"/>
    """
    status, out, errors = folder.run(write("a.xml", CVAT.format(shapes)), "--val", "0")
    assert (status, errors) == (0, [])
    np.testing.assert_array_equal(folder.masks()["x"], ids("####oo ####oo .###oo o...oo"))
    found = folder.description()
    assert found["classes"] == ["wall", "Tür, offen"]
    assert found["colors"] == {"wall": [10, 20, 30], "Tür, offen": [255, 0, 0]}
    notes = [line for line in out if line.startswith("note: ")]
    assert [n.split(": ", 2)[2] for n in notes] == [
        "1 boxes have no outline; they are void where nothing else lies",
        "1 annotations of the kind points have no area; left out",
        "1 annotations of the kind tag have no area; left out",
    ]


def region(kind, label, value, width=6, height=4, **more):
    return {
        "id": f"{kind}{label}",
        "type": f"{kind}labels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {f"{kind}labels": [label], **value},
        **more,
    }


def test_label_studio_paints_as_written_and_takes_one_annotation(folder, write):
    folder.photo("Foto Ä 1.png", 6, 4)
    brush = brush_rle(drawn("...... .##... ...... ......").astype(np.uint8))
    corners = [[0, 0], [100 * 4 / 6, 0], [100 * 4 / 6, 100], [0, 100]]
    box_of = {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0}
    regions = [
        region("polygon", "sky", {"points": corners, "closed": True}),
        region("brush", "cat", {"format": "rle", "rle": brush}),
        region("rectangle", "cat", box_of),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    task = {
        "id": 5,
        "data": {"image": "/data/upload/3/0123abcd-Foto_%C3%84_1.png", "note": "x"},
        "annotations": [
            {"result": [], "updated_at": "2026-01-02T00:00:00Z", "was_cancelled": True},
            {"result": regions[:1], "updated_at": "2026-01-01T00:00:00Z"},
            {"result": regions, "updated_at": "2026-01-01T10:00:00Z"},
        ],
        "predictions": [17],
    }
    other = {"data": {"image": "none.png"}, "annotations": [], "predictions": []}
    view = '<View><BrushLabels name="a" toName="i"><Label value="cat" background="#FFA39E"/>'
    view += '<Label value="sky" background="blue"/></BrushLabels><Choices name="c" toName="i">'
    view += '<Choice value="good"/></Choices></View>'
    tasks = write("export.json", json.dumps([task, other]))
    status, out, errors = folder.run(tasks, write("view.xml", view), "--val", "0")
    assert (status, errors) == (0, [])
    np.testing.assert_array_equal(folder.masks()["Foto Ä 1"], ids("oooo.. o##o.. oooo.. oooo.."))
    found = folder.description()
    assert found["classes"] == ["cat", "sky"]
    assert found["colors"] == {"cat": [255, 163, 158], "sky": [0, 0, 255]}
    text = "\n".join(out)
    assert "1 tasks are not annotated; left out" in text
    assert "1 tasks have several annotations" in text
    assert "1 boxes have no outline" in text


def test_label_studio_without_its_interface_says_so(folder, write):
    folder.photo("x.png", 6, 4)
    value = {"points": [[0, 0], [100, 0], [100, 100]]}
    task = {"data": {"img": "x.png"}, "annotations": [{"result": [region("polygon", "b", value)]}]}
    _, out, _ = folder.run(write("export.json", json.dumps([task])), "--val", "0")
    assert any("does not say the order of the classes" in line for line in out)


@pytest.mark.parametrize("cvat", [True, False])
def test_colour_masks(folder, write, cvat):
    folder.photo("a/x y.jpg", 6, 4)
    write("masks/labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
          "sky:10,20,30::\ncat:0,0,200::\n")  # fmt: skip
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[0], colours[:, 5] = (10, 20, 30), (0, 0, 200)
    path = folder.root / "masks" / ("SegmentationClass" if cvat else "") / "a/x y.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    if cvat:
        write("masks/SegmentationObject/a/x y.png", "other")
    status, out, errors = folder.run(folder.root / "masks", "--val", "0")
    assert (status, errors) == (0, [])
    tool = "CVAT Segmentation mask 1.1" if cvat else "colour masks with labelmap.txt"
    assert f": {tool}, 1 images" in out[0]
    expected = ids("#####o .....o .....o .....o")
    np.testing.assert_array_equal(folder.masks()["a__x y"], expected)
    status, _, _ = folder.run(folder.root / "masks", "--val", "0", "--background", "cat")
    assert status == 0
    np.testing.assert_array_equal(folder.masks()["a__x y"], np.where(expected == 255, 1, expected))


def test_a_background_that_is_new_is_the_first_class(folder, write):
    folder.photo("x.png", 6, 4)
    source = write("c.json", coco([{"category_id": 3, "segmentation": [square(1, 1, 1)]}]))
    folder.run(source, "--val", "0", "--background", "ground")
    assert folder.description()["classes"] == ["ground", "cat", "sky"]
    expected = np.zeros((4, 6))
    expected[1, 1] = 1
    np.testing.assert_array_equal(folder.masks()["x"], expected)


BAD = {
    "empty.json": ("", "the file is empty"),
    "empty.xml": ("", "the file is empty"),
    "half.json": ('{"images": [', "line 1: no JSON"),
    "deep.json": ("[" * 100_000, "no JSON"),
    "half.xml": ("<annotations><image", "line 1: no XML"),
    "other.json": ('{"shapes": [], "imagePath": ""}', "with the keys shapes, imagePath; known are"),
    "list.json": ("[1]", "another kind, a list"),
    "other.xml": ("<annotation/>", "another kind, <annotation>"),
    "photo.png": ("PNG", "is no file of a labelling tool; known are COCO JSON"),
    "track.xml": ("<annotations><track id='0'/></annotations>", "a video; export it as CVAT for"),
    "bomb.xml": (
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotations>&y;</annotations>',
        "declares a document type",
    ),
    "outside.xml": ('<!DOCTYPE annotations SYSTEM "http://x.invalid/a.dtd"><annotations/>', "docu"),
    "twice.json": (
        coco([], categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]),
        "the class 'cat' is named twice, again by the category with the id 2",
    ),
    "nameless.json": (coco([], categories=[{"id": 1, "name": " "}]), "empty name"),
    "missing.json": (coco([{}]), "annotations.0.category_id: field required"),
    "zero.json": (coco([], images=[{"id": 1, "file_name": "x", "width": 0}]), "images.0.width"),
    "wide.json": (coco([], images=[{"id": 1, "file_name": 5}]), "images.0.file_name"),
    "ids.json": (coco([], images=[{"id": 1, "file_name": "x"}] * 2), "two images have the id 1"),
    "none.json": (coco([], categories=[]), "names no class"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_none_are_one_line(name, folder, write):
    folder.photo("x.png", 6, 4)
    status, _, errors = folder.run(write(name, BAD[name][0]))
    assert status == 2
    (line,) = errors
    assert BAD[name][1] in line
    assert name in line or "names no class" in line
    assert not (folder.output / "masks").exists()


OBJECTS = {
    "unknown category": ({"category_id": 9}, "annotation 0 has the category 9"),
    "neither": ({"category_id": 3}, "annotation 0 (cat) has neither a segmentation nor a bbox"),
    "two corners": (
        {"category_id": 3, "segmentation": [[1, 1, 2, 2]]},
        "annotation 0 (cat): a polygon has 4 coordinates",
    ),
    "outside": (
        {"category_id": 3, "segmentation": [square(8, 1, 2)]},
        "annotation 0 (cat) lies outside the image of 6x4 px",
    ),
    "scale": ({"category_id": 3, "segmentation": [square(100, 1, 2)]}, "of another image or scale"),
    "runs": (
        {"category_id": 3, "segmentation": {"size": [4, 6], "counts": [3, 5]}},
        "annotation 0 (cat): the runs of a mask are 8 px long",
    ),
    "size": (
        {"category_id": 3, "segmentation": {"size": [5, 5], "counts": "0i0"}},
        "is of 5x5 px, its image of 6x4",
    ),
    "text": ({"category_id": 3, "segmentation": [["a"] * 6]}, "neither polygons nor run lengths"),
    "number": ({"category_id": 3, "segmentation": 5}, "neither polygons nor run lengths"),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_objects_that_cannot_be_painted_are_one_line(what, folder, write):
    """Another image of the export is prepared nevertheless, and --skip-bad goes on."""
    for name in ("x.png", "y.png"):
        folder.photo(name, 6, 4)
    images = [
        {"id": i, "file_name": f"{n}.png", "width": 6, "height": 4} for i, n in ((7, "x"), (8, "y"))
    ]
    good = {"category_id": 3, "segmentation": [square(0, 0, 2)], "image_id": 8}
    source = write("c.json", coco([OBJECTS[what][0], good], images=images))
    status, _, errors = folder.run(source)
    assert status == 2
    (line,) = errors
    assert line.startswith(f"error: {source}: image x.png: ")
    assert OBJECTS[what][1] in line
    assert list(folder.masks()) == ["y"]
    assert not list(folder.output.glob("*.yaml"))
    status, out, errors = folder.run(source, "--skip-bad")
    assert (status, errors) == (0, [])
    assert f"note: left out: {line.removeprefix('error: ')}" in out
    assert folder.listed("train") == ["y"]


CVAT_OBJECTS = {
    '<mask label="wall" rle="1,2" left="0" top="0" width="3" height="2"/>': "3 px long, 3x2 are 6",
    '<mask label="wall" rle="0,6" left="5" top="0" width="3" height="2"/>': "not within",
    '<mask label="wall" rle="0,x" left="0" top="0" width="3" height="2"/>': "'rle' holds no number",
    '<mask label="wall" rle="0,6" left="0" top="0" width="3"/>': "'height' holds no number",
    '<polygon label="door" points="0,0;1,1;2,0"/>': "polygon 1 (door): the label 'door' is not",
    '<polygon label="wall" points="0,0;1,1;inf,0"/>': "without end",
    '<polygon label="wall" points="0,0;1,1"/>': "4 coordinates",
    '<circle label="wall"/>': "circle 1 (wall): is of a kind that is not known",
}  # fmt: skip


@pytest.mark.parametrize("shape", CVAT_OBJECTS)
def test_shapes_of_cvat_that_cannot_be_painted(shape, folder, write):
    folder.photo("x.png", 6, 4)
    status, _, errors = folder.run(write("a.xml", CVAT.format(shape)))
    assert status == 2
    (line,) = errors
    assert "image x.png: " in line
    assert CVAT_OBJECTS[shape] in line


LABEL_STUDIO = {
    "two labels": (region("brush", "a", {"rle": [], "brushlabels": ["a", "b"]}), "2 labels"),
    "no label": ({**region("brush", "a", {}), "value": {"rle": [1]}}, "0 labels, one is needed"),
    "turned": (region("brush", "a", {"rle": [1]}, image_rotation=90), "turned by 90 degrees"),
    "bytes": (region("brush", "a", {"rle": [300]}), "beyond 0..255"),
    "early": (region("brush", "a", {"rle": [0, 0, 0]}), "ends too early"),
    "size": (region("brush", "a", {"rle": brush_rle(np.ones((9, 9), np.uint8))}), "324 values"),
    "sizeless": (region("brush", "a", {"rle": [1]}, width=None), "lacks original_width"),
    "corners": (region("polygon", "a", {"points": [[1, 1]]}), "2 coordinates"),
    "scale": (region("polygon", "a", {"points": [[1, 1], [9000, 1], [1, 9]]}), "or scale"),
    "bitmask": (region("bitmask", "a", {"imageDataURL": "data:image/png;base64,"}), "a bitmask"),
}  # fmt: skip


@pytest.mark.parametrize("what", LABEL_STUDIO)
def test_regions_of_label_studio_that_cannot_be_painted(what, folder, write):
    folder.photo("x.png", 6, 4)
    good = region("polygon", "a", {"points": [[0, 0], [100, 0], [100, 100]]})
    task = {"data": {"image": "x.png"}, "annotations": [{"result": [good, LABEL_STUDIO[what][0]]}]}
    status, _, errors = folder.run(write("a.json", json.dumps([task])))
    assert status == 2
    (line,) = errors
    assert "image x.png: " in line
    assert LABEL_STUDIO[what][1] in line


def test_what_has_no_area_in_label_studio_is_left_out_and_said(folder, write):
    folder.photo("x.png", 6, 4)
    results = [
        region("polygon", "a", {"points": [[0, 0], [100, 0], [100, 100]]}),
        region("keypoint", "b", {"x": 5, "y": 5, "width": 0.5}),
        region("vector", "b", {"vertices": [{"x": 5, "y": 5}]}),
    ]
    task = {"data": {"image": "x.png"}, "annotations": [{"result": results}]}
    status, out, errors = folder.run(write("a.json", json.dumps([task])))
    assert (status, errors) == (0, [])
    assert folder.description()["classes"] == ["a"]
    text = "\n".join(out)
    for kind in ("keypoint", "vector"):
        assert f"1 annotations of the kind {kind} have no area; left out" in text


def test_images_that_are_bad_are_named_where_nothing_else_has_a_class(folder, write):
    folder.photo("x.png", 6, 4)
    task = {"data": {"image": "x.png"}, "annotations": [{"result": [LABEL_STUDIO["turned"][0]]}]}
    export = write("a.json", json.dumps([task]))
    status, _, errors = folder.run(export)
    assert status == 2
    assert [error for error in errors if "turned by 90 degrees" in error] == errors != []
    status, out, (line,) = folder.run(write("b.json", json.dumps([{**task, "annotations": []}])))
    assert status == 2
    assert any("1 tasks are not annotated" in note for note in out)
    assert "b.json: names no class; annotate images" in line


def test_label_studio_in_short_form_is_told_how_to_export(folder, write):
    folder.photo("x.png", 6, 4)
    task = {"image": "x.png", "id": 1, "annotation_id": 1, "annotator": 1, "label": []}
    _, _, (line,) = folder.run(write("a.json", json.dumps([task])))
    assert "JSON-MIN of Label Studio; export it as JSON" in line


def test_labels_that_an_interface_does_not_offer_are_said(folder, write):
    folder.photo("x.png", 6, 4)
    value = {"points": [[0, 0], [100, 0], [100, 100]]}
    task = {"data": {"img": "x.png"}, "annotations": [{"result": [region("polygon", "b", value)]}]}
    view = write("view.xml", '<View><PolygonLabels><Label value="B"/></PolygonLabels></View>')
    _, out, _ = folder.run(write("a.json", json.dumps([task])), view)
    assert folder.description()["classes"] == ["B", "b"]
    assert any("a.json: b: no label of" in line for line in out)


LABELMAPS = {
    "sky:1,2\n": "line 1: 'sky:1,2' is no NAME:R,G,B",
    "sky\n": "line 1: 'sky' is no NAME",
    "sky:1,2,256::\n": "colours are 0 to 255",
    "sky:1,2,3::\n\nsea:1,2,3::\n": "line 3: the colour 1,2,3 is given twice",
    "sky:1,2,3::\nsky:1,2,4::\n": "the class 'sky' is named twice, again by labelmap.txt, line 2",
    "sky:1,2,3::\nSky:1,2,4::\n": "the class 'Sky' is named twice, again by labelmap.txt, line 2",
    "background:0,0,0::\n": "names no class",
    "sky:1,2,3::\n": "24 px have the colour 0,0,9, the first at x 0, y 0, which labelmap.txt",
}


@pytest.mark.parametrize("text", LABELMAPS)
def test_labelmaps_and_colours_that_are_wrong(text, folder, write):
    folder.photo("x.png", 6, 4)
    write("m/labelmap.txt", text)
    Image.new("RGB", (6, 4), (0, 0, 9)).save(folder.root / "m/x.png")
    status, _, errors = folder.run(folder.root / "m")
    assert status == 2
    (line,) = errors
    assert LABELMAPS[text] in line


def test_colour_masks_of_lossy_kinds_are_refused(folder, write):
    folder.photo("x.png", 6, 4)
    write("m/labelmap.txt", "sky:0,0,9::")
    Image.new("RGB", (6, 4), (0, 0, 9)).save(folder.root / "m/x.png", format="JPEG")
    _, _, (line,) = folder.run(folder.root / "m")
    assert "mask is a JPEG" in line


def test_files_of_one_export_are_read_as_one_and_of_several_tools_refused(folder, write):
    for name in ("x.png", "y.png"):
        folder.photo(name, 6, 4)
    one = [{"category_id": 3, "segmentation": [square(1, 1, 1)]}]
    first = write("e/a.json", coco(one))
    second = json.loads(coco(one))
    second["images"][0]["file_name"] = "y.png"
    second["categories"] = [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}]
    write("e/b.json", json.dumps(second))
    write("e/info.json", '{"licence": 1}')
    status, out, errors = folder.run(folder.root / "e", "--val", "0")
    assert (status, errors) == (0, [])
    assert folder.description()["classes"] == ["cat", "sky", "dog"]
    assert {name: sorted(set(mask.ravel())) for name, mask in folder.masks().items()} == {
        "x": [0, 255],
        "y": [2, 255],
    }
    status, _, (line,) = folder.run(first, write("c.xml", CVAT.format("")))
    assert status == 2
    assert "a.json is COCO and " in line
    assert "c.xml is CVAT for images 1.1" in line
    status, _, (line,) = folder.run(first, folder.root / "e/a.json")
    assert status == 2
    assert "x.png is described twice" in line


def test_an_annotation_of_no_image_is_a_problem(folder, write):
    folder.photo("x.png", 6, 4)
    good = {"category_id": 3, "segmentation": [square(1, 1, 1)]}
    status, _, (line,) = folder.run(write("c.json", coco([good, {**good, "image_id": 99}])))
    assert status == 2
    assert "annotation 1 is of image 99, which 'images' lacks" in line


def test_archives_and_folders_without_annotations(tmp_path, write):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ZssError, match=r"is an archive; unpack it"):
        recognise.read_exports([tmp_path / "a.zip"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZssError, match=r"no file of a labelling tool .*; known are COCO JSON"):
        recognise.read_exports([tmp_path / "empty"])
    with pytest.raises(ZssError, match=r"cannot be read \(No such file"):
        recognise.read_exports([tmp_path / "gone.json"])
    with pytest.raises(ZssError, match="holds no annotations"):
        recognise.read_exports([write("v.xml", "<View/>")])
