"""Writes a custom dataset: links to the images, index masks, lists, and the yaml description.

DIR/images/ID.jpg   masks/ID.png   train.txt   val.txt   NAME.yaml
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from zss_d2.data.exports.export import Colour, Painter, Picture
from zss_d2.data.files.images import (
    image_orientation,
    image_size,
    image_stamp,
    read_image,
)
from zss_d2.data.files.lists import read_text
from zss_d2.data.prepare.convert import Job, Pair, is_placed, place_image, spare_originals
from zss_d2.data.prepare.outcome import run_parallel
from zss_d2.errors import ZssError
from zss_d2.utils.writing import WriteError, make_folder, remove_leftovers, write_atomic, write_mask

# How images are turned upright, by their EXIF orientation.
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEAD = (
    "# Written by `zss masks`, from {tool}. It may be changed by hand: a later run then keeps it.\n"
    "# {text} {classes}\n"
)


@dataclass(frozen=True)
class Item:
    """An image of the data set to be."""

    picture: Picture
    image_id: str
    image: Path


@dataclass(frozen=True)
class Result:
    """What became of an image: ``void`` says that its mask would be void everywhere."""

    state: Literal["written", "kept", "void", "bad"]
    problem: str = ""
    notes: tuple[str, ...] = ()
    turned: bool = False


def write_masks(
    items: Sequence[Item], root: Path, painter: Painter, copy: bool, workers: int, label: str
) -> list[Result]:
    """Write the mask of every image, and a link to it or a copy; what is there already is kept.

    Raises WriteError if something cannot be written, or would be written over an original.
    """
    job = Job(root / "images", root / "masks", np.zeros(0, np.int32), copy)
    for folder in (job.images, job.annotations):
        make_folder(folder)
        remove_leftovers(folder)
    return list(run_parallel(functools.partial(_convert, job, painter), items, workers, label))


def _convert(job: Job, painter: Painter, item: Item) -> Result:
    source, name = item.picture.source, item.picture.image[0]
    where = f"{source}: " if source.stem == Path(name).stem else f"{source}: image {name}: "
    pair = Pair(item.image_id, item.image, source)
    spare_originals(job, pair)
    try:
        size, turn = _annotated_size(item)
        stamp = f"{item.picture.stamp(painter)}{turn or ''}"
        image_out, mask_out = job.targets(pair)
        upright = size[::-1] if turn else size
        if (
            image_stamp(mask_out) == stamp
            and image_size(mask_out) == upright
            and _placed(job, pair, image_out)
        ):
            return Result("kept", turned=bool(turn))
        mask, notes = item.picture.paint(painter, size)
        if (mask == painter.void).all():
            return Result("void")
        if turn:
            mask = np.asarray(Image.fromarray(mask).transpose(_TURNS[turn]))
        write_mask(mask_out, mask, stamp)
        place_image(job, pair, image_out)
    except WriteError:
        raise
    except ZssError as error:
        return Result("bad", f"{where}{error}")
    except OSError as error:
        return Result("bad", f"{error.filename}: cannot be read ({error.strerror}); check the file")
    return Result("written", notes=tuple(f"{where}{note}" for note in notes), turned=bool(turn))


def _placed(job: Job, pair: Pair, image_out: Path) -> bool:
    try:
        return is_placed(job, pair, image_out)
    except OSError:
        return False


def _annotated_size(item: Item) -> tuple[tuple[int, int], int]:
    """Size of the image as it was annotated, and the EXIF orientation that its mask needs, or 0.

    Tools that know nothing of EXIF data show images lying on their side.
    """
    upright = image_size(item.image)
    if upright is None:
        read_image(item.image)
        raise ZssError(f"{item.image} cannot be read; restore the file")
    said = item.picture.size
    if item.picture.by_stem:
        said = image_size(item.picture.source)
    if said is None or said == upright:
        return upright, 0
    orientation = image_orientation(item.image)
    if said == upright[::-1] and orientation in _TURNS:
        return said, orientation
    raise ZssError(
        f"it is {said[0]}x{said[1]} px there, but {item.image} is {upright[0]}x{upright[1]}; give "
        "the image that was annotated"
    )


@dataclass(frozen=True)
class Description:
    """The yaml of the data set.

    Attributes:
        path: of the file.
        name: of the data set.
        tool: where it comes from.
        colours: RGB of classes, as far as they are known.
        unseen: names of classes, or ``all``.
    """

    path: Path
    name: str
    tool: str
    classes: Sequence[str]
    colours: Mapping[str, Colour]
    unseen: Sequence[str] | str
    void: int

    def check(self) -> None:
        """Raise ZssError if a file is there that is not ours, or was made for other classes."""
        if not self.path.exists():
            return
        head = self._found()
        if head is None:
            raise ZssError(
                f"{self.path}: is no file of `zss masks`; give another --output or --name"
            )
        edited, classes = head
        if edited and classes != self._classes_digest:
            raise ZssError(
                f"{self.path}: was changed by hand, and the classes of the annotations are others "
                "now; move it away, run the same command again, and make the changes anew"
            )

    def write(self, splits: Collection[str]) -> bool:
        """Write the file; returns False where one that was changed by hand is kept instead."""
        found = self._found() if self.path.exists() else None
        if found and found[0]:
            return False
        body = self._body(splits)
        head = _HEAD.format(tool=self.tool, text=_digest(body), classes=self._classes_digest)
        write_atomic(self.path, lambda file: file.write_text(head + body, encoding="utf-8"))
        return True

    def _found(self) -> tuple[bool, str] | None:
        """Whether the file was changed by hand, and for which classes it is; None: not ours."""
        first, _, rest = read_text(self.path).partition("\n")
        second, _, body = rest.partition("\n")
        words = second.split()
        if not first.startswith(_HEAD.split(",")[0]) or len(words) != 3:
            return None
        return words[1] != _digest(body), words[2]

    @property
    def _classes_digest(self) -> str:
        return _digest(repr((list(self.classes), self.void)))

    def _body(self, splits: Collection[str]) -> str:
        places = {
            split: {"images": "images", "masks": "masks", "list": f"{split}.txt"}
            for split in splits
        }
        content: dict[str, Any] = {
            "name": self.name,
            "classes": list(self.classes),
            "unseen": self.unseen if isinstance(self.unseen, str) else list(self.unseen),
            "ignore_label": self.void,
        }
        if self.colours:
            content["colors"] = {
                name: list(self.colours[name]) for name in self.classes if name in self.colours
            }
        content["splits"] = places
        return yaml.safe_dump(
            content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
