"""The output folder: its manifest, its records, and the files about all images.

``predict.json`` says what the results were made with and what became of every image;
``predict.jsonl`` holds a record per image; ``.journal/`` those of runs that have not ended.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zss_d2.collection.state.identity import require_same
from zss_d2.collection.state.journal import DONE, FAILED, Records
from zss_d2.data.files.predictions import KIND, MANIFEST, RECORDS
from zss_d2.errors import ZssError
from zss_d2.predict.formats import CollectionFormat, Record
from zss_d2.predict.words import Words
from zss_d2.utils.writing import write_atomic

JOURNAL = ".journal"
# Of a record, what is of use here alone.
_OWN = ("name", "source", "stamp", "files", "status", "masks")


class OutputFolder:
    """Reads and writes what is about all images of a folder."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = path / MANIFEST

    def require_own(self) -> None:
        """Raise `ZssError` where there are files that ``zss predict`` has not written."""
        if self.manifest.is_file():
            self._content()
            return
        try:
            entries = sorted(x.name for x in self.path.iterdir() if not x.name.startswith("."))
        except FileNotFoundError:
            return
        if entries:
            raise ZssError(
                f"--output {self.path} holds {entries[0]!r} and no {MANIFEST}, so it is not of zss "
                "predict; give a new or empty folder"
            )

    def begin(self, identity: Mapping[str, Any]) -> int:
        """Make sure that results of this identity may go here; returns the number of the run.

        Raises:
            ZssError: other results are here; nothing can be written.
        """
        self.require_own()
        if self.manifest.is_file():
            require_same(self.manifest, self._content(), identity)
        else:
            self._write_manifest({"kind": KIND, "state": "not finished", **identity}, ())
        numbers = [int(path.name.split("-")[0]) for path in self._journals()]
        return max(numbers, default=0) + 1

    def journal(self, run: int, rank: int) -> Path:
        """Where a process of a run notes what it has done."""
        return self.path / JOURNAL / f"{run:06}-{rank:05}.jsonl"

    def records(self) -> Records:
        """What is known of the images that are here."""
        finished = self.path / RECORDS
        return Records([*([finished] if finished.is_file() else []), *self._journals()])

    def finish(
        self,
        identity: Mapping[str, Any],
        run: Mapping[str, Any],
        words: Words,
        formats: Mapping[str, CollectionFormat],
        names: Collection[str],
    ) -> str:
        """Merge what processes have noted, and write the files about all images.

        Args:
            run: what the manifest says about this run.
            names: of all images of this run; of others, those that have failed are forgotten.

        Returns:
            the first image that has failed, and why; "": there is none.
        """
        records, path = self.records(), self.path / RECORDS
        records.forget(FAILED, names)
        write_atomic(path, lambda file: _write_lines(file, records.lines()))
        # Should this be the last that happens, the next run does the rest.
        failure = records.first(FAILED)
        shutil.rmtree(self.path / JOURNAL, ignore_errors=True)
        for form in formats.values():
            form.write(form.path(self.path), words, _done(path, form.needs_masks))
        totals = Counter(entry.status for entry in records.entries.values())
        images = sum(totals.values())
        head = {
            "kind": KIND,
            "state": "finished",
            **identity,
            "totals": {"images": images, **totals},
            "last_run": dict(run),
        }
        self._write_manifest(head, self._statuses())
        return f"{failure['source']}: {failure['error']}" if failure else ""

    def _statuses(self) -> Iterator[Mapping[str, Any]]:
        for record in _read(self.path / RECORDS):
            keys = ("file_name", "status", "error", "files")
            yield {key: record[key] for key in keys if key in record}

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            if content["kind"] != KIND:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ZssError(
                f"{self.manifest} is damaged, or not of zss predict; give another --output"
            ) from None
        return content

    def _journals(self) -> Sequence[Path]:
        return sorted((self.path / JOURNAL).glob("*-*.jsonl"))

    def _write_manifest(
        self, head: Mapping[str, Any], images: Iterator[Mapping[str, Any]] | tuple[()]
    ) -> None:
        # An image a line, and never all of them in memory.
        start = json.dumps(head, indent=2).removesuffix("\n}")

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8") as file:
                file.write(f'{start},\n  "images": [')
                for number, image in enumerate(images):
                    file.write(f"{',' * (number > 0)}\n    {json.dumps(image)}")
                file.write("\n  ]\n}\n")

        write_atomic(self.manifest, write)


def _done(path: Path, masks: bool) -> Iterator[Record]:
    for record in _read(path):
        if record["status"] == DONE and (record["masks"] or not masks):
            yield {key: value for key, value in record.items() if key not in _OWN}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(lines)
