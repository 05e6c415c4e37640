"""A table for spreadsheets: an image per row, a class per column."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from zss_d2.predict.formats.base import Record
    from zss_d2.predict.words import Words

# Spreadsheets take a cell that begins so for a formula, and would compute it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_table(file: TextIO, words: Words, records: Iterable[Record]) -> None:
    """Path, width and height in px, and the share of every class in percent.

    Spreadsheets see by the mark at its beginning that the file is UTF-8. A name that they would
    take for a formula has an apostrophe before it.
    """
    file.write("\ufeff")
    table = csv.writer(file)
    records = iter(records)
    first = next(records, None)
    names = words.names if first is None else first["area"]
    table.writerow(["image", "width", "height", *(_text(f"{name} %") for name in names)])
    for record in chain([] if first is None else [first], records):
        shares = (f"{100 * share:.4f}" for share in record["area"].values())
        # Halves of a pair stand for bytes of a path that are no text.
        name = record["file_name"].encode("utf-8", "backslashreplace").decode()
        table.writerow([_text(name), record["width"], record["height"], *shares])


def _text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
