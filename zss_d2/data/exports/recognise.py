"""Which tool a file or a folder comes from, told by its content."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from zss_d2.data.exports.coco import is_coco, read_coco
from zss_d2.data.exports.colour_masks import LABELMAP, read_colour_masks
from zss_d2.data.exports.cvat import read_cvat, xml_root
from zss_d2.data.exports.export import Export
from zss_d2.data.exports.images import files_below
from zss_d2.data.exports.json_file import read_json
from zss_d2.data.exports.label_studio import (
    INTERFACE,
    is_label_studio,
    is_label_studio_min,
    read_interface,
    read_label_studio,
)
from zss_d2.errors import ZssError

KNOWN = (
    "known are COCO JSON, CVAT for images 1.1, CVAT Segmentation mask 1.1, Label Studio JSON, and "
    "colour masks with labelmap.txt"
)


def read_exports(sources: Sequence[Path]) -> Export:
    """Read all files and folders of one export as one.

    Classes are in the order of the first file, further ones follow; those of a labelling interface
    of Label Studio come before all.

    Raises ZssError for what is not known, and for files of different tools.
    """
    exports = [export for source in sources for export in _read(source)]
    exports.sort(key=lambda export: export.tool != INTERFACE)
    data = [export for export in exports if export.tool != INTERFACE]
    if not data:
        raise ZssError(f"{sources[0]}: holds no annotations; give the file with them too")
    first = data[0]
    for other in data[1:]:
        if other.tool != first.tool:
            raise ZssError(
                f"{first.source} is {first.tool} and {other.source} is {other.tool}; give the "
                "files of one export, and run once for each"
            )
    if len(data) < len(exports) and not first.tool.startswith("Label Studio"):
        raise ZssError(
            f"{exports[0].source} is {INTERFACE}, {first.source} is {first.tool}; leave the first "
            "out"
        )
    joint = Export(first.source, first.tool)
    for export in exports:
        joint.classes += [name for name in export.classes if name not in joint.classes]
        joint.colours = export.colours | joint.colours
        joint.pictures += export.pictures
        joint.notes += export.notes
        joint.problems += export.problems
    offered = [name for export in exports if export.tool == INTERFACE for name in export.classes]
    if others := [name for name in joint.classes if offered and name not in offered]:
        joint.notes.append(
            f"{first.source}: {', '.join(others)}: no label of {exports[0].source}; these classes "
            "come after those that are"
        )
    if first.tool.startswith("Label Studio") and len(data) == len(exports):
        joint.notes.append(
            f"{first.source}: does not say the order of the classes, here that in which they "
            "occur; give the labelling interface (XML) too to have its order and colours"
        )
    return joint


def _read(source: Path) -> list[Export]:
    if source.is_dir():
        if (source / LABELMAP).is_file():
            return [read_colour_masks(source)]
        files = files_below(source, (".json", ".xml")).values()
        found = [export for path in files if (export := _read_known(path))]
        if not found:
            raise ZssError(f"{source}: no file of a labelling tool is in it; {KNOWN}")
        return found
    path = source.parent if source.name == LABELMAP and source.is_file() else source
    if path.is_dir():
        return [read_colour_masks(path)]
    if export := _read_known(path):
        return [export]
    if zipfile.is_zipfile(path):
        raise ZssError(f"{path}: is an archive; unpack it and give the folder")
    raise ZssError(f"{path}: {_shown(path)}; {KNOWN}")


def _read_known(path: Path) -> Export | None:
    """Read a file; None if it is of no kind that is known. Raises ZssError if it is damaged."""
    if _begins_as_xml(path):
        reader = {"annotations": read_cvat, "View": read_interface}.get(xml_root(path))
        return reader(path) if reader else None
    if zipfile.is_zipfile(path):
        return None
    if not _may_be_json(path):
        raise ZssError(f"{path}: is no file of a labelling tool; {KNOWN}")
    data = read_json(path)
    if is_coco(data):
        return read_coco(path, data)
    return read_label_studio(path, data) if is_label_studio(data) else None


def _begins_as_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml" or _head(path).startswith(b"<")


def _may_be_json(path: Path) -> bool:
    """Whether a file says so, or begins so; what does neither has its own remedy."""
    head = _head(path)
    return path.suffix.lower() == ".json" or not head or head[:1] in b"[{\xff\xfe"


def _head(path: Path) -> bytes:
    """The first bytes of a file, without a byte order mark of UTF-8 and blanks."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise ZssError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def _shown(path: Path) -> str:
    """What a file is instead, in a few words."""
    if _begins_as_xml(path):
        return f"XML of another kind, <{xml_root(path)}>"
    data = read_json(path)
    if is_label_studio_min(data):
        return "JSON-MIN of Label Studio; export it as JSON"
    if isinstance(data, dict):
        return f"JSON of another kind, with the keys {', '.join(list(data)[:5]) or 'none'}"
    return f"JSON of another kind, a {type(data).__name__}"
