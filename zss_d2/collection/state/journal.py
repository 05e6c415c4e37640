"""What is known of every image: lines that processes append, and an index of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from zss_d2.utils.writing import make_folder, write_error

DONE, FAILED = "done", "failed"

# What a record has, of which types: any one, one of an image that is done, one with masks.
_OF_ANY = {"name": str, "source": str, "file_name": str, "stamp": (list, type(None))}
_OF_DONE = {"files": dict, "masks": bool, "width": int, "height": int, "area": dict}
_OF_FAILED = {"error": str}
_OF_MASKS = {"annotations": list}


class Journal:
    """A file that one process appends records to; what is appended outlives the process."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; raises WriteError. Threads may do so at once."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                if self._descriptor is None:
                    make_folder(self.path.parent)
                    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                    self._descriptor = os.open(self.path, flags, 0o666)
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError as error:
                raise write_error(error, self.path) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Entry(NamedTuple):
    """What the index keeps of a record; the rest is read again when it is needed."""

    status: str
    source: str
    stamp: tuple[int, int] | None  # bytes and time of the source, see `stamp_of`
    files: tuple[tuple[str, str], ...]  # format, path below the folder
    masks: bool
    journal: Path
    offset: int
    length: int


class Records:
    """The last record of every image, by its name, of journals that are read one after another.

    A line that is no record, such as the last one of a process that was killed, counts as absent.
    """

    def __init__(self, journals: Iterable[Path]):
        self.entries: dict[str, Entry] = {}
        for journal in journals:
            for offset, line in _lines(journal):
                self._add(journal, offset, line)

    def _add(self, journal: Path, offset: int, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not _is_record(record):
            return
        self.entries[record["name"]] = Entry(
            record["status"],
            record["source"],
            tuple(record["stamp"]) if record["stamp"] else None,
            tuple(record.get("files", {}).items()),
            record.get("masks", False),
            journal,
            offset,
            len(line),
        )

    def forget(self, status: str, but: Collection[str]) -> None:
        """Drop the records of a status, except of images of these names."""
        kept = {n: x for n, x in self.entries.items() if x.status != status or n in but}
        self.entries = kept

    def first(self, status: str) -> dict[str, Any] | None:
        """The first record of a status, by the names of images."""
        names = [name for name, entry in self.entries.items() if entry.status == status]
        return json.loads(next(self.lines([min(names)]))) if names else None

    def lines(self, names: Iterable[str] | None = None) -> Iterator[bytes]:
        """The lines of all records, or those of some images, in the order of names.

        Args:
            names: None: all of them, sorted.
        """
        with ExitStack() as stack:
            files: dict[Path, BinaryIO] = {}
            for name in sorted(self.entries) if names is None else names:
                entry = self.entries[name]
                if entry.journal not in files:
                    files[entry.journal] = stack.enter_context(entry.journal.open("rb"))
                files[entry.journal].seek(entry.offset)
                yield files[entry.journal].read(entry.length)


def stamp_of(path: str) -> tuple[int, int] | None:
    """Bytes and time of the last change (ns) of a file; None where it cannot be asked."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_record(record: Any) -> bool:
    """Whether everything is there that is asked for later."""
    if not isinstance(record, dict) or record.get("status") not in (DONE, FAILED):
        return False
    if record["status"] == FAILED:
        return _has(record, {**_OF_ANY, **_OF_FAILED})
    return (
        _has(record, {**_OF_ANY, **_OF_DONE})
        and all(isinstance(file, str) for file in record["files"].values())
        and all(isinstance(share, (int, float)) for share in record["area"].values())
        and (not record["masks"] or _has(record, _OF_MASKS))
    )


def _has(record: Mapping[str, Any], types: Mapping[str, Any]) -> bool:
    return all(key in record and isinstance(record[key], kind) for key, kind in types.items())


def _lines(journal: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with journal.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line
            offset += len(line)
