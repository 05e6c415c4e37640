"""CVAT for images 1.1: polygons, masks, ellipses; boxes say where something unknown is.

The XML is read by expat as a stream. A document type is refused: CVAT writes none, and entities
that are declared there can unpack to fill the memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.parsers import expat

from PIL import ImageColor

from zss_d2.data.exports.export import Colour, Drawn, Export, Region
from zss_d2.data.exports.shapes import Polygon, Runs, Shape, box, ellipse, turned_about_centre
from zss_d2.errors import ZssError

TOOL = "CVAT for images 1.1"
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
Attributes = dict[str, str]


def xml_root(path: Path) -> str:
    """Name of the outermost element; raises ZssError if it is no XML."""

    def start(name: str, attributes: Attributes) -> None:
        raise _Found(name)

    try:
        parse_xml(path, start)
    except _Found as found:
        return found.args[0]
    raise AssertionError("XML has an element")


def parse_xml(
    path: Path,
    start: Callable[[str, Attributes], object],
    end: Callable[[str], object] | None = None,
    text: Callable[[str], object] | None = None,
) -> None:
    """Call the functions for what begins, ends and is written in a file.

    Raises ZssError for what is no XML, and for a document type.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text

    def refuse(*_: object) -> None:
        raise ZssError(f"{path}: declares a document type, which is not read; export it again")

    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        if reason == "no element found" and not path.stat().st_size:
            raise ZssError(f"{path}: the file is empty; export it again") from None
        raise ZssError(f"{path}: line {error.lineno}: no XML ({reason}); export it again") from None
    except OSError as error:
        raise ZssError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def read_cvat(path: Path) -> Export:
    """Read a file. Regions are painted by their ``z_order``, of equal ones the later on top.

    Raises ZssError naming the file and the entry.
    """
    return _Reader(path).read()


class _Found(Exception):
    pass


class _Reader:
    """What has been read so far of a file."""

    def __init__(self, path: Path):
        self.export = Export(path, TOOL)
        self._path = path
        self._stack: list[str] = []
        self._label: dict[str, str] = {}
        self._text: list[str] = []
        self._image: Attributes | None = None
        self._regions: list[tuple[int, Region]] = []
        self._problem = ""
        self._left_out: Counter[str] = Counter()
        self._boxes = 0

    def read(self) -> Export:
        parse_xml(self._path, self._start, self._end, self._text.append)
        if self._boxes:
            self.export.notes.append(
                f"{self._path}: {self._boxes} boxes have no outline; they are void where nothing "
                "else lies"
            )
        for kind, count in sorted(self._left_out.items()):
            self.export.notes.append(
                f"{self._path}: {count} annotations of the kind {kind} have no area; left out"
            )
        return self.export

    def _start(self, name: str, attributes: Attributes) -> None:
        self._stack.append(name)
        self._text.clear()
        if name == "track":
            raise ZssError(
                f"{self._path}: is an export of a video; export it as CVAT for images 1.1"
            )
        if name == "label":
            self._label = {}
        elif name == "image":
            self._image, self._regions, self._problem = attributes, [], ""
        elif self._image is not None and self._stack[-2] == "image":
            self._add_region(name, attributes)

    def _end(self, name: str) -> None:
        self._stack.pop()
        inside = self._stack[-1] if self._stack else ""
        if inside == "label" and name in ("name", "color", "parent"):
            self._label[name] = "".join(self._text)
        elif name == "label" and inside == "labels" and "parent" not in self._label:
            self._add_label()
        elif name == "image" and self._image is not None:
            self._add_picture(self._image)
            self._image = None

    def _add_label(self) -> None:
        name = self._label.get("name", "")
        self.export.add_class(name, "a label")
        if colour := parse_colour(self._label.get("color", "")):
            self.export.colours[name] = colour

    def _add_picture(self, image: Attributes) -> None:
        try:
            size = (_whole(image, "width"), _whole(image, "height"))
        except ZssError as error:
            size, self._problem = None, self._problem or str(error)
        ordered = [region for _, region in sorted(self._regions, key=lambda pair: pair[0])]
        names = (image.get("name", ""),)
        self.export.pictures.append(
            Drawn(self._path, names, size, tuple(ordered), problem=self._problem)
        )

    def _add_region(self, kind: str, attributes: Attributes) -> None:
        if kind in _WITHOUT_AREA:
            self._left_out[kind] += 1
            return
        label = attributes.get("label", "")
        name = f"{kind} {len(self._regions) + 1} ({label})"
        try:
            if label not in self.export.classes:
                raise ZssError(
                    f"the label {label!r} is not among those at the head of the file; add it "
                    "there, or export it again"
                )
            shape = _shape(kind, attributes)
            height = _whole(attributes, "z_order", "0")
        except ZssError as error:
            self._problem = self._problem or f"{name}: {error}"
            return
        self._boxes += kind == "box"
        # Below all others, whatever its own height.
        place = -(2**40) if kind == "box" else height
        self._regions.append((place, Region(None if kind == "box" else label, shape, name)))


def _shape(kind: str, attributes: Attributes) -> Shape:
    angle = _number(attributes, "rotation", "0")
    if kind == "polygon":
        points = attributes.get("points", "").replace(";", ",").split(",")
        return Polygon.of(_numbers("points", points))
    if kind == "mask":
        runs = attributes.get("rle", "").split(",")
        frame = tuple(_whole(attributes, key) for key in ("left", "top", "width", "height"))
        return Runs.of(map(int, _numbers("rle", runs)), box=frame)
    if kind == "box":
        left, top, right, bottom = (_number(attributes, x) for x in ("xtl", "ytl", "xbr", "ybr"))
        return turned_about_centre(box(left, top, right - left, bottom - top), angle)
    if kind == "ellipse":
        return ellipse(*(_number(attributes, x) for x in ("cx", "cy", "rx", "ry")), angle)
    raise ZssError("is of a kind that is not known; export it as CVAT for images 1.1")


def _numbers(key: str, texts: Iterable[str]) -> list[float]:
    try:
        values = [float(text) for text in texts]
    except (ValueError, OverflowError) as error:
        raise ZssError(f"{key!r} holds no number ({error}); export it again") from None
    if not all(map(math.isfinite, values)):
        raise ZssError(f"{key!r} holds a number without end; export it again")
    return values


def _number(attributes: Attributes, key: str, default: str = "") -> float:
    return _numbers(key, [attributes.get(key, default)])[0]


def _whole(attributes: Attributes, key: str, default: str = "") -> int:
    value = _number(attributes, key, default)
    if abs(value) > 2**31 or value != int(value):
        raise ZssError(f"{key!r} is {attributes.get(key)!r}, no whole number; export it again")
    return int(value)


def parse_colour(text: str) -> Colour | None:
    """RGB of a colour as HTML writes it; None if it is none."""
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        return None
