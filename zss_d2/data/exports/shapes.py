"""Outlines that labelling tools draw, and the pixels inside them.

All coordinates are px of the annotated image, x to the right and y downwards, 0 at the outer edge
of the first pixel. Polygons are filled by pycocotools, as COCO and CVAT do it themselves.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from zss_d2.errors import ZssError

# Corners that an ellipse is drawn with.
_ELLIPSE_CORNERS = 72
# Values of a pixel in a brush, RGBA, and the least alpha that counts as painted.
_CHANNELS, _PAINTED = 4, 128


@dataclass(frozen=True)
class Polygon:
    """Rings of x, y, x, y, ...; the pixels in any of them are inside."""

    rings: tuple[array, ...]

    @classmethod
    def of(cls, *rings: Iterable[float]) -> Polygon:
        """That of these rings, in little memory."""
        return cls(tuple(array("d", ring) for ring in rings))

    def mask(self, height: int, width: int) -> np.ndarray:
        """The pixels inside, (height, width) bool; what is outside the image is cut off."""
        return coco_mask.decode(self._rle(height, width)).astype(bool)

    def area(self, height: int, width: int) -> int:
        """How many pixels are inside.

        Raises ZssError for a ring of less than three corners, and one in another scale.
        """
        return int(coco_mask.area(self._rle(height, width)))

    def overhang(self, height: int, width: int) -> float:
        """How far it reaches beyond the image, px."""
        points = np.array([value for ring in self.rings for value in ring]).reshape(-1, 2)
        return float(max(-points.min(), (points - [width, height]).max(), 0))

    def _rle(self, height: int, width: int) -> dict:
        for ring in self.rings:
            # Of four numbers pycocotools makes a box.
            if len(ring) < 6 or len(ring) % 2:
                raise ZssError(
                    f"a polygon has {len(ring)} coordinates; it needs 3 corners or more, x and y "
                    "of each"
                )
        if not self.rings:
            raise ZssError("a polygon has no corner; delete it in the tool")
        values = np.array([value for ring in self.rings for value in ring]).reshape(-1, 2)
        size = np.array([width, height])
        if not (np.isfinite(values) & (values >= -size) & (values <= 2 * size)).all():
            raise ZssError(
                f"a polygon reaches from {_point(values.min(0))} to {_point(values.max(0))} in an "
                f"image of {width}x{height} px; its coordinates are of another image or scale"
            )
        rings = [list(ring) for ring in self.rings]
        return coco_mask.merge(coco_mask.frPyObjects(rings, height, width))


@dataclass(frozen=True)
class Runs:
    """Lengths of runs outside and inside, in turn, through a box, by rows or by columns.

    Attributes:
        box: left, top, width, height; None: the whole image.
        size: width and height of the image that it is of, if the file says so.
    """

    lengths: array
    box: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    by_column: bool = False

    @classmethod
    def of(cls, lengths: Iterable[int], **more: Any) -> Runs:
        """Those of these lengths, in little memory; raises ZssError for impossible ones."""
        try:
            return cls(array("i", lengths), **more)
        except OverflowError:
            raise ZssError("the runs of a mask are longer than any image; it is damaged") from None

    def mask(self, height: int, width: int) -> np.ndarray:
        """The pixels inside, (height, width) bool; raises ZssError as `area` does."""
        self.area(height, width)
        left, top, w, h = self.box or (0, 0, width, height)
        inside = np.arange(len(self.lengths)) % 2 == 1
        flat = np.repeat(inside, self.lengths)
        mask = np.zeros((height, width), bool)
        mask[top : top + h, left : left + w] = (
            flat.reshape(w, h).T if self.by_column else flat.reshape(h, w)
        )
        return mask

    def area(self, height: int, width: int) -> int:
        """How many pixels are inside.

        Raises ZssError for runs that do not fill the box, and a box that leaves the image.
        """
        if self.size not in (None, (width, height)):
            raise ZssError(
                f"a mask is of {self.size[0]}x{self.size[1]} px, its image of {width}x{height}; "
                "it is of another image"
            )
        left, top, w, h = self.box or (0, 0, width, height)
        if min(left, top) < 0 or min(w, h) < 1 or left + w > width or top + h > height:
            raise ZssError(
                f"a mask lies at {_point((left, top))} with {w}x{h} px, which is not within an "
                f"image of {width}x{height}; it is of another image"
            )
        if min(self.lengths, default=0) < 0 or sum(self.lengths) != w * h:
            raise ZssError(
                f"the runs of a mask are {sum(self.lengths)} px long, {w}x{h} are {w * h}; it is "
                "damaged, or of another image"
            )
        return sum(self.lengths[1::2])


@dataclass(frozen=True)
class Brush:
    """What Label Studio's brush paints: RGBA values in the bit stream of rle-pack (thi.ng)."""

    data: bytes

    def mask(self, height: int, width: int) -> np.ndarray:
        """The pixels that are painted, (height, width) bool; raises ZssError for damaged ones."""
        values = brush_values(self.data, _CHANNELS * height * width)
        return values.reshape(height, width, _CHANNELS)[..., 3] >= _PAINTED

    def area(self, height: int, width: int) -> int:
        """How many pixels are painted."""
        return int(self.mask(height, width).sum())


Shape = Polygon | Runs | Brush


def box(left: float, top: float, width: float, height: float, angle: float = 0.0) -> Polygon:
    """A box; ``angle`` turns it clockwise about its upper left corner, degrees."""
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    return Polygon.of(_turned(corners, angle, (0, 0), (left, top)))


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Polygon:
    """An ellipse about (x, y), as a polygon; ``angle`` turns it clockwise, degrees."""
    steps = [2 * math.pi * step / _ELLIPSE_CORNERS for step in range(_ELLIPSE_CORNERS)]
    corners = [(rx * math.cos(step), ry * math.sin(step)) for step in steps]
    return Polygon.of(_turned(corners, angle, (0, 0), (x, y)))


def turned_about_centre(polygon: Polygon, angle: float) -> Polygon:
    """A polygon of one ring turned clockwise about the mean of its corners, degrees."""
    points = list(zip(polygon.rings[0][::2], polygon.rings[0][1::2], strict=True))
    centre = (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))
    return Polygon.of(_turned(points, angle, centre, centre))


def coco_runs(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed form.

    Digits of 5 bits from the letters behind ``0``, the lowest first, each with a bit that says
    whether more follow, the last with the sign; from the fourth run on they are differences to the
    last but one. pycocotools, which decodes them too, reads beyond its memory where they do not
    fill the image.

    Raises ZssError if the text ends within a number or holds other letters.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for letter in data:
        digit = letter - 48
        if not 0 <= digit < 64 or shift > 40:
            raise ZssError("the compressed runs of a mask are damaged; export them again")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ZssError("the compressed runs of a mask end too early; export them again")
    return runs


def brush_values(data: bytes, count: int) -> np.ndarray:
    """Decode Label Studio's brush: (count,) uint8.

    The stream of bits is: how many values (32), bits of a value less 1 (5), bits of the four kinds
    of counts less 1 (4 each); then blocks of a bit that says whether one value is repeated, the
    kind (2), the count less 1, and one value, or as many as the count says.

    Raises ZssError for a stream that holds another number of values, or ends too early.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    at = 0

    def take(width: int) -> int:
        nonlocal at
        end = at + width
        if end > len(bits):
            raise ZssError("the brush of a region ends too early; export it again")
        window = int.from_bytes(data[at >> 3 : (end + 7) >> 3], "big")
        at = end
        return window >> (-end % 8) & ((1 << width) - 1)

    size, width = take(32), take(5) + 1
    kinds = [take(4) + 1 for _ in range(4)]
    if size != count or width > 8:
        raise ZssError(
            f"the brush of a region holds {size} values of {width} bits, and its image has "
            f"{count} of 8; it is damaged, or of another image"
        )
    parts, done = [], 0
    weights = 1 << np.arange(width)[::-1]
    while done < size:
        repeated = take(1)
        length = 1 + take(kinds[take(2)])
        if done + length > size:
            raise ZssError("the brush of a region is longer than its image; export it again")
        if repeated:
            parts.append(np.full(length, take(width), np.uint8))
        else:
            end = at + length * width
            if end > len(bits):
                raise ZssError("the brush of a region ends too early; export it again")
            parts.append((bits[at:end].reshape(length, width) @ weights).astype(np.uint8))
            at = end
        done += length
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def _turned(
    corners: Sequence[tuple[float, float]],
    angle: float,
    centre: tuple[float, float],
    to: tuple[float, float],
) -> tuple[float, ...]:
    """Corners turned about ``centre``, which moves to ``to``, as x, y, x, y, ..."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    ring: list[float] = []
    for x, y in corners:
        dx, dy = x - centre[0], y - centre[1]
        ring += [to[0] + cos * dx - sin * dy, to[1] + sin * dx + cos * dy]
    return tuple(ring)


def _point(point: Sequence[float]) -> str:
    return f"({point[0]:g}, {point[1]:g})"
