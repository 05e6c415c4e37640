"""Masks as pictures with a colour per class, which ``labelmap.txt`` names.

CVAT's "Segmentation mask 1.1" is one: ``labelmap.txt`` beside ``SegmentationClass/*.png``.
"""

from __future__ import annotations

from pathlib import Path

from zss_d2.data.exports.export import Colour, Coloured, Export
from zss_d2.data.exports.images import files_below
from zss_d2.data.files.listing import MASK_SUFFIXES
from zss_d2.data.files.lists import read_text
from zss_d2.errors import ZssError

LABELMAP = "labelmap.txt"
_CVAT_FOLDER = "SegmentationClass"
# What CVAT writes where nothing is annotated, and calls it.
_EMPTY = ("background", (0, 0, 0))


def read_colour_masks(folder: Path) -> Export:
    """Read the names and colours of a folder with ``labelmap.txt``; the masks are only listed.

    The label ``background``, black, is what nothing covers.

    Raises ZssError naming the file and the line.
    """
    masks = folder / _CVAT_FOLDER
    tool = "CVAT Segmentation mask 1.1" if masks.is_dir() else "colour masks with labelmap.txt"
    root = masks if masks.is_dir() else folder
    export = Export(folder, tool)
    colours: dict[Colour, str | None] = {}
    path = folder / LABELMAP
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colour = _entry(path, number, line)
        if colour in colours:
            raise ZssError(
                f"{path}: line {number}: the colour {','.join(map(str, colour))} is given twice; "
                "give every class its own"
            )
        if (name, colour) == _EMPTY:
            colours[colour] = ""
            continue
        export.add_class(name, f"{path.name}, line {number}")
        export.colours[name] = colour
        colours[colour] = name
    if not export.classes:
        raise ZssError(f"{path}: names no class; write lines such as  sky:70,130,180::")
    for relative, file in files_below(root, MASK_SUFFIXES).items():
        export.pictures.append(Coloured(file, (relative,), colours))
    if not export.pictures:
        raise ZssError(f"{root}: the folder holds no mask; masks are read from PNG files")
    return export


def _entry(path: Path, number: int, line: str) -> tuple[str, Colour]:
    """Name and colour of ``name:r,g,b:parts:actions``, whose end may be missing."""
    name, *rest = line.rstrip().split(":")
    try:
        red, green, blue = (int(value) for value in rest[0].split(","))
    except (IndexError, ValueError):
        raise ZssError(
            f"{path}: line {number}: {line.strip()!r:.60} is no NAME:R,G,B; correct it"
        ) from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ZssError(f"{path}: line {number}: colours are 0 to 255; correct it")
    return name, (red, green, blue)
