"""What an export of a labelling tool says, whatever the tool: classes, and regions per image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zss_d2.data.exports.shapes import Brush, Polygon, Shape
from zss_d2.data.files.images import read_colours
from zss_d2.data.spec.schema import as_clip_reads
from zss_d2.errors import ZssError

Colour = tuple[int, int, int]
# Raised when the same export is painted in another way than before: masks are then made anew.
_PAINTING = "1"
# What polygons may reach beyond their image without a word, px: tools round.
_ROUNDING = 1.0


@dataclass(frozen=True)
class Region:
    """An outlined part of an image.

    Attributes:
        label: name of its class; None: what is in it is void.
        shape: its outline.
        name: what the export calls it, for messages.
    """

    label: str | None
    shape: Shape
    name: str


@dataclass(frozen=True)
class Painter:
    """How names become ids.

    Attributes:
        ids: class name -> train id.
        void: id of pixels that are void.
        uncovered: id of pixels that nothing covers.
    """

    ids: Mapping[str, int]
    void: int
    uncovered: int

    @property
    def dtype(self) -> np.dtype:
        """Of masks: uint8 as long as all ids fit, else uint16."""
        return np.dtype(np.min_scalar_type(self.void))


@dataclass(frozen=True)
class Drawn:
    """An image with outlines.

    Attributes:
        source: the file that says so.
        image: name of the image there, and others that it may have, the likeliest first.
        size: width and height of the annotated image, px; None: not said.
        regions: the outlines, the lowest first.
        by_area: paint larger ones first instead, void ones before all.
        problem: what is wrong with the image's entry, in a line; "" if nothing is.
    """

    source: Path
    image: tuple[str, ...]
    size: tuple[int, int] | None
    regions: tuple[Region, ...]
    by_area: bool = False
    problem: str = ""
    by_stem = False

    def stamp(self, painter: Painter) -> str:
        """What tells a mask of these regions from others."""
        return _digest(self.size, self.regions, self.by_area, sorted(painter.ids.items()), painter)

    def paint(self, painter: Painter, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """Paint the mask of an image of that size: (height, width) ids, and notes.

        Raises ZssError, with the region's name, for one that cannot be drawn.
        """
        width, height = size
        mask = np.full((height, width), painter.uncovered, painter.dtype)
        areas, notes = [], []
        for region in self.regions:
            # The area of a brush takes as long as painting it, and nobody asks for it.
            is_brush = isinstance(region.shape, Brush) and not self.by_area
            areas.append(0 if is_brush else self._area(region, height, width))
            if _overhang(region, height, width) > _ROUNDING:
                notes.append(f"{region.name} reaches beyond the image and is cut off there")
        order = list(range(len(self.regions)))
        if self.by_area:
            order.sort(key=lambda i: (self.regions[i].label is not None, -areas[i]))
        for index in order:
            region = self.regions[index]
            label = painter.void if region.label is None else painter.ids[region.label]
            try:
                mask[region.shape.mask(height, width)] = label
            except ZssError as error:
                raise ZssError(f"{region.name}: {error}") from None
        return mask, notes

    @staticmethod
    def _area(region: Region, height: int, width: int) -> int:
        try:
            area = region.shape.area(height, width)
        except ZssError as error:
            raise ZssError(f"{region.name}: {error}") from None
        if not area and _overhang(region, height, width) > _ROUNDING:
            raise ZssError(
                f"{region.name} lies outside the image of {width}x{height} px; move or delete it "
                "in the tool"
            )
        return area


@dataclass(frozen=True)
class Coloured:
    """An image whose mask is a picture, a colour per class.

    Attributes:
        source: the picture.
        image: as in `Drawn`; only what stands before the suffix counts.
        colours: colour -> name of the class; None: void; "" what nothing covers.
    """

    source: Path
    image: tuple[str, ...]
    colours: Mapping[Colour, str | None] = field(repr=False)
    size: tuple[int, int] | None = None
    problem: str = ""
    by_stem = True

    def stamp(self, painter: Painter) -> str:
        """What tells a mask of this file from others."""
        status = self.source.stat()
        origin = (self.source.name, status.st_size, status.st_mtime_ns)
        return _digest(
            origin, sorted(self.colours.items(), key=repr), sorted(painter.ids.items()), painter
        )

    def paint(self, painter: Painter, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """Translate the picture: (height, width) ids, and no notes.

        Raises ZssError for another size, and a colour without a class.
        """
        picture = read_colours(self.source).astype(np.int32)
        if picture.shape[1::-1] != tuple(size):
            raise ZssError(f"it has {picture.shape[1]}x{picture.shape[0]} px, not {size}")
        codes = (picture[..., 0] << 16) + (picture[..., 1] << 8) + picture[..., 2]
        found, first, inverse, counts = np.unique(
            codes, return_index=True, return_inverse=True, return_counts=True
        )
        table = np.zeros(len(found), painter.dtype)
        for index, code in enumerate(found.tolist()):
            colour = (code >> 16, code >> 8 & 255, code & 255)
            if colour not in self.colours:
                row, column = divmod(int(first[index]), picture.shape[1])
                raise ZssError(
                    f"{counts[index]} px have the colour {','.join(map(str, colour))}, the first "
                    f"at x {column}, y {row}, which labelmap.txt does not name; add it there, or "
                    "draw without soft edges"
                )
            name = self.colours[colour]
            table[index] = {None: painter.void, "": painter.uncovered}.get(
                name, painter.ids.get(name, painter.void)
            )
        return table[inverse.reshape(codes.shape)], []


Picture = Drawn | Coloured


@dataclass
class Export:
    """One file or folder of a labelling tool.

    Attributes:
        source: the file or folder.
        tool: what it was recognised as.
        classes: names, in the order of the file.
        colours: RGB of classes, as far as the tool has them.
        pictures: the images.
        notes: what a user should know, a line each.
        problems: what is wrong and concerns no single image, a line each.
    """

    source: Path
    tool: str
    classes: list[str] = field(default_factory=list)
    colours: dict[str, Colour] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add_class(self, name: str, where: str) -> None:
        """Add a class; raises ZssError for an empty name, and one that is there already."""
        if not name.strip():
            raise ZssError(f"{self.source}: {where} has an empty name; name it in the tool")
        if as_clip_reads(name) in map(as_clip_reads, self.classes):
            raise ZssError(
                f"{self.source}: the class {name!r} is named twice, again by {where}; rename one "
                "in the tool, or make them one"
            )
        self.classes.append(name)


def _overhang(region: Region, height: int, width: int) -> float:
    shape = region.shape
    return shape.overhang(height, width) if isinstance(shape, Polygon) else 0.0


def _digest(*parts: object) -> str:
    text = repr((_PAINTING, *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
