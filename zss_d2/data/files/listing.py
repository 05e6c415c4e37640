"""What lies in the folders of a data set: images, masks, and the pairs of a split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from zss_d2.data.files.images import require_folder
from zss_d2.errors import ZssError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".webp")
# Other kinds of pictures; that some lie in a folder is said where one of ours is missed.
_OTHER_SUFFIXES = (*MASK_SUFFIXES, *IMAGE_SUFFIXES, ".bmp", ".gif", ".jp2", ".heic", ".avif")
# macOS keeps the resources of FILE in ._FILE wherever file systems do not.
_FOREIGN_PREFIX = "._"


@dataclass(frozen=True)
class Location:
    """Where the images and the masks of a split lie, and what to do if they do not."""

    images: Path
    masks: Path
    remedy: str
    ids: tuple[str, ...] | None = None
    """The images that belong to the split; None: all of the folder."""
    raw_to_train: Mapping[int, int] | None = None
    """Train ids of what the masks hold; None: they hold train ids."""
    mask_remedy: str = "correct the mask"
    """What to do about a mask with a wrong value; it never costs a file of the user's own."""
    image_endings: tuple[str, ...] = IMAGE_SUFFIXES
    """What follows the id in the names of images; other files are none."""
    mask_endings: tuple[str, ...] = MASK_SUFFIXES
    subfolders: bool = False
    """Whether what lies in the folders inside, one level down, is part of the split too."""

    def has_images(self) -> bool:
        """Whether a name in the folder is an image's. Raises ZssError if it cannot be listed."""
        entries = _entries(self.images, self.subfolders)
        return any(id_before(entry.name, self.image_endings) for entry in entries)


def load_records(location: Location, name: str) -> list[dict[str, str]]:
    """Pair the images and masks of a split.

    Returns:
        Records sorted by id: ``file_name``, ``sem_seg_file_name``, ``image_id``, ``dataset_name``
        (``name``).

    Raises:
        ZssError: a folder is missing or empty, the two are one, or an image or a mask lacks its
            partner.
    """
    remedy = location.remedy
    for folder in (location.images, location.masks):
        require_folder(folder, remedy)
    if location.images.samefile(location.masks):
        raise ZssError(
            f"{location.masks}: images and masks lie in one folder, where nothing tells them "
            f"apart; put the masks into one of their own, and {remedy}"
        )
    images = files_by_id(location.images, location.image_endings, location.subfolders)
    masks = files_by_id(location.masks, location.mask_endings, location.subfolders)
    if not images:
        found = _others(location.images, location.image_endings, location.subfolders)
        raise ZssError(
            f"{location.images}: the folder holds no image{found}; images are read from "
            f"{', '.join(location.image_endings)} files; {remedy}"
        )
    wanted = images.keys() | masks.keys() if location.ids is None else set(location.ids)
    if without_mask := sorted(wanted - masks.keys()):
        found = _others(location.masks, location.mask_endings, location.subfolders, without_mask)
        kinds = f"; masks are read from {', '.join(location.mask_endings)} files" if found else ""
        raise ZssError(
            f"{location.masks}: no mask for {summarise(without_mask)}{found}{kinds}; {remedy}"
        )
    if without_image := sorted(wanted - images.keys()):
        endings = location.image_endings
        found = _others(location.images, endings, location.subfolders, without_image)
        kinds = f"; images are read from {', '.join(endings)} files" if found else ""
        raise ZssError(
            f"{location.images}: no image, or a link to itself or a link to a file that is gone, "
            f"for {summarise(without_image)}{found}{kinds}; {remedy}"
        )
    return [
        {
            "file_name": images[image_id],
            "sem_seg_file_name": masks[image_id],
            "image_id": image_id,
            "dataset_name": name,
        }
        for image_id in sorted(wanted)
    ]


def files_by_id(folder: Path, endings: tuple[str, ...], subfolders: bool = False) -> dict[str, str]:
    """Return {id: path} of the files in ``folder`` that end so and can be opened.

    Strings, not paths: a hundred thousand of them are listed when training starts.

    Args:
        endings: of names, such as ``.png`` or ``_labelIds.png``; the id is what stands before.
        subfolders: list the folders inside too, one level down.

    Raises ZssError if two files share an id, or a folder may not be listed.
    """
    files: dict[str, str] = {}
    for entry in _entries(folder, subfolders):
        image_id = id_before(entry.name, endings)
        if not image_id or is_foreign(entry.name) or not _is_file(entry):
            continue
        if image_id in files:
            other = os.path.basename(files[image_id])
            raise ZssError(
                f"{folder}: {entry.name} and {other} have the same id {image_id!r}; keep masks and "
                "images in folders of their own, or rename one"
            )
        files[image_id] = entry.path
    return files


def id_before(name: str, endings: tuple[str, ...]) -> str:
    """Return what stands before the ending of a file's name, in either case; "" for other files."""
    lower = name.lower()
    for ending in endings:
        if lower.endswith(ending.lower()):
            return name[: -len(ending)]
    return ""


def subfolder_note(location: Location) -> str:
    """Say that the image folder has folders in it, whose images are not read; "" if it has none.

    Where a list says which images there are, none is missed.
    """
    if location.ids is not None or location.subfolders:
        return ""
    entries = (entry for entry in _entries(location.images) if not entry.name.startswith("."))
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        return ""
    return f"{location.images}: images in its folders, {summarise(names)}, are not read"


def is_foreign(name: str) -> bool:
    """Whether a file of that name comes from macOS, not from the data set."""
    return name.startswith(_FOREIGN_PREFIX)


def summarise(names: list[str], shown: int = 5) -> str:
    """Return the number of names and the first few of them."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} ({', '.join(names[:shown])}{more})"


def _entries(folder: str | Path, subfolders: bool = False) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
            inside = [entry.path for entry in found if subfolders and entry.is_dir()]
        return found + [entry for path in sorted(inside) for entry in _entries(path)]
    except OSError as error:
        raise ZssError(
            f"{folder}: cannot be listed ({error.strerror}); check the folder and its permissions"
        ) from None


def _is_file(entry: os.DirEntry) -> bool:
    # A link may lead to itself, or to where nobody may look.
    try:
        return entry.is_file()
    except OSError:
        return False


def _others(
    folder: Path, endings: tuple[str, ...], subfolders: bool, ids: list[str] | None = None
) -> str:
    """Say which pictures of other names lie there, of these ids if given; nothing if none."""
    wanted = None if ids is None else set(ids)
    kinds: Counter[str] = Counter()
    example = ""
    for entry in _entries(folder, subfolders):
        stem, suffix = os.path.splitext(entry.name)
        kind = suffix.lower()
        ours = id_before(entry.name, endings)
        if ours or kind not in _OTHER_SUFFIXES or is_foreign(entry.name):
            continue
        # Where an ending is missed, an id is some parts of the name.
        if wanted is None or not wanted.isdisjoint(accumulate(stem.split("_"), "{}_{}".format)):
            kinds[kind] += 1
            example = min(example or entry.name, entry.name)
    if not kinds:
        return ""
    counted = " and ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f" but {counted} files, such as {example}"
