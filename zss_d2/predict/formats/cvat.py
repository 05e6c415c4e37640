"""CVAT: its own XML for images, version 1.1, with masks; and the labels that its task needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO
from xml.sax.saxutils import XMLGenerator

from zss_d2.predict.formats.markup import possible
from zss_d2.predict.formats.records import decoded, run_lengths
from zss_d2.predict.palette import hex_colours

if TYPE_CHECKING:
    from zss_d2.predict.formats.base import Record
    from zss_d2.predict.words import Words


def write_cvat(file: TextIO, words: Words, records: Iterable[Record]) -> None:
    """An ``image`` per record; the runs of a mask go row by row through its bounding box."""
    names = dict(enumerate(words.names))
    xml = XMLGenerator(file, encoding="utf-8", short_empty_elements=True)
    xml.startDocument()
    xml.startElement("annotations", {})
    _element(xml, "version", "1.1")
    xml.startElement("meta", {})
    xml.startElement("task", {})
    _element(xml, "name", "zss_d2")
    _element(xml, "mode", "annotation")
    xml.startElement("labels", {})
    for label in _labels(words):
        xml.startElement("label", {})
        for key in ("name", "color", "type"):
            _element(xml, key, label[key])
        xml.endElement("label")
    for name in ("labels", "task", "meta"):
        xml.endElement(name)
    for index, record in enumerate(records):
        _image(xml, index, record, names)
    xml.ignorableWhitespace("\n")
    xml.endElement("annotations")
    xml.ignorableWhitespace("\n")


def labels(words: Words) -> str:
    """What CVAT's constructor of labels takes as ``Raw``, JSON."""
    return json.dumps(_labels(words), indent=1) + "\n"


def _labels(words: Words) -> list[dict[str, Any]]:
    return [
        {"name": possible(name), "color": colour, "type": "mask", "attributes": []}
        for name, colour in hex_colours(words).items()
    ]


def _image(xml: XMLGenerator, index: int, record: Record, names: dict[int, str]) -> None:
    image = {
        "id": str(index),
        "name": possible(record["file_name"]),
        "width": str(record["width"]),
        "height": str(record["height"]),
    }
    xml.ignorableWhitespace("\n")
    xml.startElement("image", image)
    for annotation in record["annotations"]:
        left, top, width, height = annotation["bbox"]
        mask = decoded(annotation)[top : top + height, left : left + width]
        box = {"left": left, "top": top, "width": width, "height": height}
        attributes = {
            "label": possible(names[annotation["category_id"]]),
            "source": "auto",
            "occluded": "0",
            "rle": ", ".join(map(str, run_lengths(mask).tolist())),
            **{key: str(value) for key, value in box.items()},
            "z_order": "0",
        }
        xml.ignorableWhitespace("\n  ")
        xml.startElement("mask", attributes)
        xml.endElement("mask")
    xml.ignorableWhitespace("\n")
    xml.endElement("image")


def _element(xml: XMLGenerator, name: str, text: str) -> None:
    xml.startElement(name, {})
    xml.characters(text)
    xml.endElement(name)
