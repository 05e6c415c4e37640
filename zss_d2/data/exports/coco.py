"""COCO JSON: polygons, run lengths, plain or compressed; boxes say where something unknown is."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from zss_d2.data.exports.export import Drawn, Export, Region
from zss_d2.data.exports.json_file import validated
from zss_d2.data.exports.shapes import Polygon, Runs, Shape, box, coco_runs
from zss_d2.errors import ZssError

TOOL = "COCO"
# In a picture larger than this no tool draws.
Side = Annotated[int, Field(gt=0, lt=2**20)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: Side | None = None
    height: Side | None = None


class _Category(BaseModel):
    id: int | str
    name: str


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int | str
    segmentation: Any = None
    bbox: list[Number] | None = None
    iscrowd: int | None = 0


class _File(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def is_coco(data: Any) -> bool:
    """Whether parsed JSON is of that kind."""
    return isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()


def read_coco(path: Path, data: Any) -> Export:
    """Read parsed JSON.

    Larger areas are painted first, so that nothing small is lost; crowds, and boxes without an
    outline, are void where nothing else lies.

    Raises ZssError naming the file and the entry.
    """
    file = validated(path, _File, data)
    export = Export(path, TOOL)
    names = {}
    for category in file.categories:
        export.add_class(category.name, f"the category with the id {category.id}")
        if category.id in names:
            raise ZssError(f"{path}: two categories have the id {category.id}; correct one")
        names[category.id] = category.name
    images = {image.id: image for image in file.images}
    if len(images) < len(file.images):
        twice = Counter(image.id for image in file.images).most_common(1)[0][0]
        raise ZssError(f"{path}: two images have the id {twice}; correct one")
    found, problems = defaultdict(list), {}
    boxes = 0
    for index, annotation in enumerate(file.annotations):
        name = f"annotation {index if annotation.id is None else annotation.id}"
        if annotation.image_id not in images:
            export.problems.append(
                f"{path}: {name} is of image {annotation.image_id}, which 'images' lacks; add it, "
                "or remove the annotation"
            )
            continue
        try:
            region = _region(annotation, names, name)
        except ZssError as error:
            problems.setdefault(annotation.image_id, str(error))
            continue
        boxes += not annotation.segmentation
        found[annotation.image_id].append(region)
    for image in file.images:
        size = (image.width, image.height) if image.width and image.height else None
        regions = tuple(found[image.id])
        problem = problems.get(image.id, "")
        export.pictures.append(Drawn(path, (image.file_name,), size, regions, True, problem))
    if boxes:
        export.notes.append(
            f"{path}: {boxes} annotations are boxes without an outline; they are void where "
            "nothing else lies"
        )
    return export


def _region(annotation: _Annotation, names: dict[int | str, str], name: str) -> Region:
    if annotation.category_id not in names:
        raise ZssError(
            f"{name} has the category {annotation.category_id}, which 'categories' lacks; add it, "
            "or remove the annotation"
        )
    label = names[annotation.category_id]
    name = f"{name} ({label})"
    if not annotation.segmentation:
        if not annotation.bbox or len(annotation.bbox) != 4:
            raise ZssError(f"{name} has neither a segmentation nor a bbox; remove it")
        return Region(None, box(*annotation.bbox), name)
    try:
        shape = _shape(annotation.segmentation)
    except ZssError as error:
        raise ZssError(f"{name}: {error}") from None
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ZssError(
            f"{name}: its segmentation {annotation.segmentation!r:.40} is neither polygons nor run "
            "lengths; export it again"
        ) from None
    return Region(None if annotation.iscrowd else label, shape, name)


def _shape(segmentation: Any) -> Shape:
    if isinstance(segmentation, list):
        rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return Polygon.of(*(map(float, ring) for ring in rings))
    counts = segmentation["counts"]
    height, width = map(int, segmentation["size"])
    lengths = map(int, counts) if isinstance(counts, list) else coco_runs(counts)
    return Runs.of(lengths, size=(width, height), by_column=True)
