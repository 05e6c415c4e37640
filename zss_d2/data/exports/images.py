"""Finding the images that an export names, whose paths are those of another machine."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from zss_d2.data.files.listing import IMAGE_SUFFIXES, is_foreign, summarise
from zss_d2.errors import ZssError

# Between the folders and the name, in an id.
_JOINT = "__"
# Bytes of an id, which a suffix follows: file systems allow 255.
_ID_BYTES = 200


def files_below(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return {path below ``folder``: path} of all files there that end so, sorted.

    Hidden files and folders are passed over. Links are followed, but no folder is read twice.

    Raises ZssError if a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise ZssError(f"{error.filename}: cannot be listed ({error.strerror}); check the folder")

    found, seen = {}, set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(root, name)
            if name.lower().endswith(suffixes) and not is_foreign(name) and name[0] != ".":
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


class Images:
    """The images of a folder and all below it, found by what exports call them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = files_below(folder, IMAGE_SUFFIXES)
        if not self.files:
            raise ZssError(
                f"{folder}: holds no image; images are read from {', '.join(IMAGE_SUFFIXES)} files"
            )
        self._by_name: dict[bool, dict[str, list[str]]] = {}
        self._uploaded: dict[str, list[str]] = defaultdict(list)
        for stem in (False, True):
            index = defaultdict(list)
            for relative in self.files:
                index[_key(relative, stem).rsplit("/", 1)[-1]].append(relative)
            self._by_name[stem] = index
        for relative in self.files:
            self._uploaded[_uploaded(relative)].append(relative)

    def find(self, names: Iterable[str], by_stem: bool = False) -> str:
        """Return the path below the folder of the image that has one of the names.

        Folders may be missing at the head of either, the rest must agree.

        Args:
            names: the likeliest first; the others may be such as Label Studio gives to files that
                are uploaded.
            by_stem: suffixes may differ.

        Raises ZssError if there is none, or several.
        """
        names = tuple(names)
        for name in names:
            if found := self._matching(name, by_stem):
                return found
        for name in names[1:]:
            renamed = self._uploaded.get(_uploaded(name), [])
            if len(renamed) == 1:
                return renamed[0]
        shown = names[0] if names else ""
        raise ZssError(
            f"{shown!r} is not in {self.folder}; add the image, or let --images name the folder "
            "that holds it"
        )

    def _matching(self, name: str, by_stem: bool) -> str:
        wanted = _key(name, by_stem)
        candidates = self._by_name[by_stem].get(wanted.rsplit("/", 1)[-1], ())
        keys = {relative: _key(relative, by_stem) for relative in candidates}
        if not wanted:
            return ""
        equal = [relative for relative, key in keys.items() if key == wanted]
        # The folder is part of a longer path; the longest says most.
        within = [relative for relative, key in keys.items() if wanted.endswith(f"/{key}")]
        longest = max((len(keys[relative]) for relative in within), default=0)
        within = [relative for relative in within if len(keys[relative]) == longest]
        below = [relative for relative, key in keys.items() if key.endswith(f"/{wanted}")]
        found = equal or within or below
        if len(found) > 1:
            raise ZssError(
                f"{name!r} may be {summarise(sorted(found))} in {self.folder}; let --images name "
                "the folder of one"
            )
        return found[0] if found else ""


def image_ids(relatives: Iterable[str]) -> dict[str, str]:
    """Return {path below the folder: id}: a name that files and lists of a data set can have.

    ``a/b c.jpg`` becomes ``a__b c``; where two images would have one id, their suffixes are kept.

    Raises ZssError where that is not enough.
    """
    relatives = list(relatives)
    ids = {
        relative: _plain_id(str(PurePosixPath(relative).with_suffix(""))) for relative in relatives
    }
    counts = Counter(map(str.casefold, ids.values()))
    ids = {
        relative: own if counts[own.casefold()] == 1 else _plain_id(relative.replace(".", "_"))
        for relative, own in ids.items()
    }
    return _distinct(ids)


def _distinct(ids: Mapping[str, str]) -> dict[str, str]:
    first: dict[str, str] = {}
    for relative, own in ids.items():
        other = first.setdefault(own.casefold(), relative)
        if other != relative:
            raise ZssError(f"{relative} and {other} would both be called {own!r}; rename one")
    return dict(ids)


def _plain_id(path: str) -> str:
    text = unicodedata.normalize("NFC", path.replace("/", _JOINT)).strip()
    # Control codes, halves of a pair, and what ends a line in a list.
    plain = "".join(
        "_" if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in text
    ).replace("\\", "_")
    if plain == path.replace("/", _JOINT) and len(plain.encode()) <= _ID_BYTES:
        return plain
    if plain == text and len(plain.encode()) <= _ID_BYTES:
        return plain
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return plain.encode()[: _ID_BYTES - 9].decode("utf-8", "ignore") + f"_{mark}"


def _key(name: str, stem: bool) -> str:
    """A path as it is compared: composed letters, slashes, nothing at its head."""
    path = unicodedata.normalize("NFC", name).replace("\\", "/")
    key = str(PurePosixPath("/", path)).lstrip("/")
    return str(PurePosixPath(key).with_suffix("")) if stem and key else key


def _uploaded(relative: str) -> str:
    name = unicodedata.normalize("NFC", relative).replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
