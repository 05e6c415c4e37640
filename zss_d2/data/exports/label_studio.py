"""Label Studio: its JSON, and the labelling interface, which has the order of classes and colours.

A brush has a bit stream of its own (`zss_d2.data.exports.shapes.brush_values`); polygons and
ellipses are in percent of the image.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, Field

from zss_d2.data.exports.coco import Number, Side
from zss_d2.data.exports.cvat import Attributes, parse_colour, parse_xml
from zss_d2.data.exports.export import Drawn, Export, Region
from zss_d2.data.exports.json_file import validated
from zss_d2.data.exports.shapes import Brush, Polygon, Shape, box, ellipse
from zss_d2.data.files.listing import IMAGE_SUFFIXES
from zss_d2.errors import ZssError

TOOL = "Label Studio"
INTERFACE = "Label Studio's labelling interface"
# Uploaded files get such a mark before their names.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
_CONTROLS = re.compile(r"(Brush|Polygon|Ellipse|Rectangle|KeyPoint|Vector|Bitmask)?Labels")
_OTHER_SUFFIXES = (*IMAGE_SUFFIXES, ".webp", ".bmp", ".tif", ".tiff", ".gif")


class _Value(BaseModel):
    rle: list[int] | None = None
    points: list[tuple[Number, Number]] | None = None
    x: Number | None = None
    y: Number | None = None
    width: Number | None = None
    height: Number | None = None
    radius_x: Number | None = Field(None, alias="radiusX")
    radius_y: Number | None = Field(None, alias="radiusY")
    rotation: Number = 0.0
    labels: list[str] = []
    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    ellipselabels: list[str] = []
    rectanglelabels: list[str] = []
    bitmasklabels: list[str] = []
    image_data_url: str | None = Field(None, alias="imageDataURL")

    @property
    def names(self) -> list[str]:
        return next(
            (
                found
                for found in (
                    self.brushlabels,
                    self.polygonlabels,
                    self.ellipselabels,
                    self.rectanglelabels,
                    self.bitmasklabels,
                    self.labels,
                )
                if found
            ),
            [],
        )


class _Result(BaseModel):
    id: str | int | None = None
    type: str
    value: _Value
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: Number = 0.0


class _Annotation(BaseModel):
    # Choices and relations are results too, and of no interest.
    result: list[dict[str, Any]]
    was_cancelled: bool = False
    ground_truth: bool = False
    updated_at: str | None = None


class _Task(BaseModel):
    id: int | str | None = None
    data: dict[str, Any]
    annotations: list[_Annotation] = []
    # Read where they count; some exports hold their numbers only.
    predictions: list[Any] = []
    file_upload: str | None = None


def is_label_studio(data: Any) -> bool:
    """Whether parsed JSON is of that kind."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and isinstance(first.get("data"), dict)


def is_label_studio_min(data: Any) -> bool:
    """Whether parsed JSON is its short form, which is not read: it lacks what regions are of."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and {"id", "annotation_id", "annotator"} <= first.keys()


def read_interface(path: Path) -> Export:
    """Read the classes and colours of a labelling interface."""
    export, inside = Export(path, INTERFACE), []

    def start(name: str, attributes: Attributes) -> None:
        if name == "Label" and inside and _CONTROLS.fullmatch(inside[-1]):
            value = attributes.get("value", "")
            # Several controls may offer the same labels.
            if value not in export.classes:
                export.add_class(value, "a label")
            if colour := parse_colour(attributes.get("background", "")):
                export.colours[value] = colour
        inside.append(name)

    parse_xml(path, start, lambda _: inside.pop())
    return export


def read_label_studio(path: Path, data: Any) -> Export:
    """Read parsed JSON; later regions are painted over earlier ones.

    Of several annotations of a task the one that is marked as ground truth counts, else the one
    that was updated last. Predictions count where no task of the file has an annotation. Classes
    are in the order in which they occur.

    Raises ZssError naming the file and the entry.
    """
    tasks = validated(path, list[_Task], data)
    export = Export(path, TOOL)
    kept = [[a for a in task.annotations if not a.was_cancelled] for task in tasks]
    if not any(kept):
        last = [[p for p in task.predictions if isinstance(p, dict)][-1:] for task in tasks]
        kept = [validated(path, list[_Annotation], predictions) for predictions in last]
        export.notes.append(f"{path}: no task has an annotation; their predictions count")
    if open_tasks := kept.count([]):
        export.notes.append(f"{path}: {open_tasks} tasks are not annotated; left out")
    if several := sum(len(candidates) > 1 for candidates in kept):
        export.notes.append(
            f"{path}: {several} tasks have several annotations; of each the ground truth counts, "
            "or the one that was updated last"
        )
    boxes, left_out = 0, Counter()
    for index, (task, candidates) in enumerate(zip(tasks, kept, strict=True)):
        if not candidates:
            continue
        chosen = max(candidates, key=lambda a: (a.ground_truth, a.updated_at or ""))
        where = f"task {index + 1 if task.id is None else task.id}"
        picture, own = _picture(path, task, chosen, where)
        boxes += own
        left_out.update(kind for result in chosen.result if (kind := _without_area(result)))
        export.pictures.append(picture)
        for region in picture.regions:
            if region.label is not None and region.label not in export.classes:
                export.add_class(region.label, region.name)
    if boxes:
        export.notes.append(
            f"{path}: {boxes} boxes have no outline; they are void where nothing else lies"
        )
    for kind, count in sorted(left_out.items()):
        export.notes.append(
            f"{path}: {count} annotations of the kind {kind} have no area; left out"
        )
    return export


def _picture(path: Path, task: _Task, chosen: _Annotation, where: str) -> tuple[Drawn, int]:
    names = _image_names(task)
    regions, sizes, problem = [], set(), ""
    areas = [result for result in chosen.result if _has_area(result)]
    results = [validated(path, _Result, result) for result in areas]
    # A brush and its label may be two results of one id.
    labelled = {result.id for result in results if result.value.names}
    boxes = 0
    for number, result in enumerate(results, 1):
        if not result.value.names and result.id in labelled:
            continue
        name = f"{where}, region {number if result.id is None else result.id}"
        try:
            region = _region(result, name)
        except ZssError as error:
            problem = problem or f"{name}: {error}"
            continue
        boxes += region.label is None
        regions.append(region)
        sizes.add((result.original_width, result.original_height))
    if len(sizes) > 1:
        problem = problem or f"{where}: its regions are of images of different sizes; redo it"
    regions.sort(key=lambda region: region.label is not None)
    size = next(iter(sizes), None)
    return Drawn(path, names, size, tuple(regions), problem=problem), boxes


def _has_area(result: dict[str, Any]) -> bool:
    value = result.get("value")
    keys = {"rle", "points", "radiusX", "width", "imageDataURL"}
    return isinstance(value, dict) and bool(value.keys() & keys) and not _without_area(result)


def _without_area(result: dict[str, Any]) -> str:
    """The kind of a drawn result that has none; "" of others, and of what is not drawn."""
    value = result.get("value")
    if not isinstance(value, dict):
        return ""
    kinds = {"keypointlabels": "keypoint", "vertices": "vector", "vectorlabels": "vector"}
    # Of a keypoint the width is that of its dot.
    return next((kind for key, kind in kinds.items() if key in value), "")


def _region(result: _Result, name: str) -> Region:
    value = result.value
    if value.image_data_url is not None:
        raise ZssError("is a bitmask, which is not read; draw it with brush or polygon")
    if len(value.names) != 1:
        raise ZssError(f"has {len(value.names)} labels, one is needed; correct it in the tool")
    if not result.original_width or not result.original_height:
        raise ZssError("lacks original_width and original_height; export it again")
    if result.image_rotation:
        raise ZssError(
            f"its image is turned by {result.image_rotation:g} degrees in the tool; turn it back "
            "there, and export it again"
        )
    shape, is_box = _shape(value, result.original_width, result.original_height)
    label = value.names[0]
    return Region(None if is_box else label, shape, f"{name} ({label})")


def _shape(value: _Value, width: int, height: int) -> tuple[Shape, bool]:
    """The outline, and whether it is only a box."""
    if value.rle is not None:
        try:
            return Brush(bytes(value.rle)), False
        except ValueError:
            raise ZssError("its brush holds values beyond 0..255; export it again") from None
    x, y = width / 100, height / 100
    if value.points is not None:
        return Polygon.of(z for p in value.points for z in (p[0] * x, p[1] * y)), False
    if value.x is None or value.y is None:
        raise ZssError("lacks x and y; export it again")
    if value.radius_x is not None and value.radius_y is not None:
        radii = (value.radius_x * x, value.radius_y * y)
        return ellipse(value.x * x, value.y * y, *radii, value.rotation), False
    if value.width is None or value.height is None:
        raise ZssError("lacks width and height; export it again")
    sides = (value.width * x, value.height * y)
    return box(value.x * x, value.y * y, *sides, value.rotation), True


def _image_names(task: _Task) -> tuple[str, ...]:
    """Names that the image of a task may have in a folder, the likeliest first."""
    texts = [text for text in task.data.values() if isinstance(text, str)]
    address = task.data.get("image")
    if not isinstance(address, str):
        address = next((text for text in texts if _is_image(text)), task.file_upload or "")
    names = [_path_of(address)]
    if task.file_upload:
        names.append(task.file_upload)
    last = (name.rsplit("/", 1)[-1] for name in names)
    plain = [_UPLOADED.sub("", name) for name in last if _UPLOADED.match(name)]
    return tuple(dict.fromkeys([*names, *plain]))


def _is_image(text: str) -> bool:
    return _path_of(text).lower().endswith(_OTHER_SUFFIXES)


def _path_of(address: str) -> str:
    """The path in an address, such as ``/data/local-files/?d=images/a%20b.jpg``."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query, errors="surrogateescape").get("d")
    return local[0] if local else unquote(parts.path, errors="surrogateescape")
