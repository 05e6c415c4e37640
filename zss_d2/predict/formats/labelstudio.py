"""Label Studio: a task per image, with masks as predictions to start from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from zss_d2.errors import ZssError
from zss_d2.predict.formats.markup import possible
from zss_d2.predict.formats.records import decoded, run_lengths
from zss_d2.predict.palette import hex_colours

if TYPE_CHECKING:
    from zss_d2.predict.formats.base import Record
    from zss_d2.predict.words import Words

# Names of the two elements of the labelling interface.
_CONTROL, _OBJECT = "label", "image"
# Label Studio serves a folder "images" from below its document root, but nothing that lies in it
# directly.
_LOCAL_FILES = "/data/local-files/?d=images/"

# A brush mask is a stream of bits: how many values, bits of a value less 1, bits of the four kinds
# of run lengths less 1; then, per run, 1, the kind, the length less 1 and the value. The values are
# those of RGBA pixels, row by row. The stream is that of the library rle-pack of thi.ng.
_CHANNELS, _VALUE_BITS = 4, 8
_LENGTH_BITS = np.array([4, 8, 12, 16])
_HEADER_BITS = np.array([32, 5, 4, 4, 4, 4])


def write_tasks(file: TextIO, words: Words, records: Iterable[Record]) -> None:
    """A list of tasks, for a project whose labelling interface is `interface`."""
    names = dict(enumerate(words.names))
    file.write("[")
    for number, record in enumerate(records):
        file.write(",\n" * (number > 0) + json.dumps(_task(record, names)))
    file.write("]\n")


def interface(words: Words) -> str:
    """The labelling interface for the tasks, XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_OBJECT, value=f"${_OBJECT}", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name=_CONTROL, toName=_OBJECT)
    for name, colour in hex_colours(words).items():
        ElementTree.SubElement(labels, "Label", value=possible(name), background=colour)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _task(record: Record, names: dict[int, str]) -> dict[str, Any]:
    regions = [
        {
            "id": f"class{annotation['category_id']}",
            "type": "brushlabels",
            "from_name": _CONTROL,
            "to_name": _OBJECT,
            "original_width": record["width"],
            "original_height": record["height"],
            "image_rotation": 0,
            "score": annotation["score"],
            "value": {
                "format": "rle",
                "rle": brush_rle(decoded(annotation)),
                "brushlabels": [possible(names[annotation["category_id"]])],
            },
        }
        for annotation in record["annotations"]
    ]
    address = _LOCAL_FILES + quote(record["file_name"], errors="surrogateescape")
    return {
        "data": {_OBJECT: address},
        "predictions": [{"model_version": "zss_d2", "result": regions}],
    }


def brush_rle(mask: np.ndarray) -> list[int]:
    """A mask (H, W) of 0 and 1 as the bytes of Label Studio's brush.

    Raises:
        ZssError: more pixels than the format can count, 2**30.
    """
    values = mask.size * _CHANNELS
    if values >= 2**32:
        raise ZssError(
            f"a mask has {mask.shape[1]} x {mask.shape[0]} px, and Label Studio's format takes "
            "fewer than 2**30; leave the format labelstudio out, or cut the image"
        )
    lengths = run_lengths(mask) * _CHANNELS
    inside = np.arange(len(lengths)) % 2
    lengths, inside = _split(lengths, inside, 2 ** int(_LENGTH_BITS[-1]))
    kind = np.searchsorted(2**_LENGTH_BITS, lengths)
    bits = _LENGTH_BITS[kind]
    codes = ((4 + kind) << bits | (lengths - 1)) << _VALUE_BITS | inside * 255
    header = np.array([values, _VALUE_BITS - 1, *(_LENGTH_BITS - 1)])
    return _packed(
        np.concatenate([header, codes]),
        np.concatenate([_HEADER_BITS, 3 + bits + _VALUE_BITS]),
    )


def _split(lengths: np.ndarray, inside: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The runs, long ones in pieces, empty ones left out."""
    pieces = -(-lengths // longest)
    last = np.cumsum(pieces) - 1
    split = np.full(pieces.sum(), longest)
    split[last[pieces > 0]] = (lengths - (pieces - 1) * longest)[pieces > 0]
    return split, np.repeat(inside, pieces)


def _packed(codes: np.ndarray, widths: np.ndarray) -> list[int]:
    """Numbers of so many bits each, one behind the other, the highest bit first, as bytes."""
    right = np.repeat(np.cumsum(widths), widths) - np.arange(widths.sum()) - 1
    bits = np.repeat(codes, widths) >> right & 1
    return np.packbits(bits.astype(np.uint8)).tolist()
