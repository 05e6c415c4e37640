"""Text files that people write: in UTF-8, or as other programs save them."""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from zss_d2.data.files.listing import IMAGE_SUFFIXES, MASK_SUFFIXES, files_by_id, is_foreign
from zss_d2.errors import ZssError

# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text in UTF-8, or in what its byte order mark says; raises ZssError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ZssError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ZssError(
            f"{path}: byte {error.start} is not {encoding}; save the text as UTF-8"
        ) from None
    if "\0" in text:
        raise ZssError(f"{path}: holds null bytes, as UTF-16 does; save the text as UTF-8")
    return text


def read_id_list(path: Path, images: Path | None = None) -> list[str]:
    """Read one image id per line.

    Args:
        images: folder of the images, which tells an id with blanks from several words, and a file
            name, whose suffix is dropped, from an id with a dot.

    Raises:
        ZssError: naming the file and the line, for what is no id or is there twice.
    """
    if not path.is_file():
        lists = sorted(p.stem for p in path.parent.glob("*.txt") if not is_foreign(p.name))
        raise ZssError(f"{path}: no such list; lists in that folder: {', '.join(lists) or 'none'}")
    folder = _Folder(images)
    ids: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name = folder.image_id(line.strip())
        if name is None:
            raise ZssError(
                f"{path}: line {number}: {line.strip()!r} is not an image id; give one per line"
            )
        if name in ids:
            raise ZssError(
                f"{path}: line {number}: {name!r} is also on line {ids[name]}; remove one"
            )
        ids[name] = number
    if not ids:
        raise ZssError(f"{path}: the list is empty; give one image id per line")
    return list(ids)


class _Folder:
    """The images that a list is about, which are listed only if a line may mean several."""

    def __init__(self, images: Path | None):
        self._images = images

    @cached_property
    def _known(self) -> Collection[str]:
        there = self._images is not None and self._images.is_dir()
        return files_by_id(self._images, IMAGE_SUFFIXES) if there else ()

    def image_id(self, text: str) -> str | None:
        """Return the id that a line names; None if it is none."""
        if "/" in text or "\\" in text:
            return None
        stem, suffix = os.path.splitext(text)
        has_suffix = suffix.lower() in (*IMAGE_SUFFIXES, *MASK_SUFFIXES)
        has_blanks = len(text.split()) > 1
        if not (has_suffix or has_blanks) or text in self._known:
            return text
        if has_suffix and stem in self._known:
            return stem
        return None if has_blanks else text
