"""What an earlier run has done, and what is left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from zss_d2.collection.inputs import Image
from zss_d2.collection.state.journal import DONE, Entry, Records, stamp_of
from zss_d2.collection.work.images import Job
from zss_d2.errors import ZssError
from zss_d2.utils.text import one_line


class Missing(NamedTuple):
    """Names of images to label, and those of them whose files have changed since."""

    names: set[str]
    changed: set[str]


def settled(images: Sequence[Image], records: Records, output: Path) -> list[Image]:
    """The images under the names that their results have already, if there are some.

    Raises:
        ZssError: results of another image have the name.
    """
    names = {entry.source: name for name, entry in records.entries.items()}
    found = [image._replace(name=names.get(image.path, image.name)) for image in images]
    taken: dict[str, str] = {}
    for image in found:
        entry = records.entries.get(image.name)
        other = taken.setdefault(image.name, image.path)
        if other == image.path and entry is not None and not _is_of(entry, image):
            other = entry.source
        if other != image.path:
            raise ZssError(
                f"--output {output}: what is called {one_line(image.name)} there is of "
                f"{one_line(other)}, not of {one_line(image.path)}; give another --output"
            )
    return found


def find_missing(pieces: Iterable[Iterable[Image]], records: Records, job: Job) -> Missing:
    """Images without a record, with a file that is gone, or that have changed."""
    missing = Missing(set(), set())
    for piece in pieces:
        for image in piece:
            entry = records.entries.get(image.name)
            if entry is None or entry.status != DONE or not _has_all(entry, job):
                missing.names.add(image.name)
            elif stamp_of(image.path) not in (None, entry.stamp):
                missing.names.add(image.name)
                missing.changed.add(image.name)
    return missing


def without_masks(images: Sequence[Image], records: Records) -> int:
    """How many images of earlier runs, that are not named now, have results but no masks."""
    named = {image.name for image in images}
    return sum(
        entry.status == DONE and not entry.masks and name not in named
        for name, entry in records.entries.items()
    )


def _is_of(entry: Entry, image: Image) -> bool:
    """Whether a record is of an image, which may have been moved; what failed has no results."""
    same = entry.source == image.path or stamp_of(image.path) == entry.stamp
    return same or entry.status != DONE


def _has_all(entry: Entry, job: Job) -> bool:
    files = dict(entry.files)
    return (entry.masks or not job.masks) and all(
        name in files and _is_there(job.folder / files[name]) for name in job.formats
    )


def _is_there(path: Path) -> bool:
    # A loss of power can leave an empty file.
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False
