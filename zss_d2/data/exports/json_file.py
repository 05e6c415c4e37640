"""Reading JSON that other programs write, with complaints that name the file and the place."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from zss_d2.data.files.lists import read_text
from zss_d2.errors import ZssError

T = TypeVar("T")


def read_json(path: Path) -> Any:
    """Parse a file; raises ZssError if it is empty or no JSON."""
    text = read_text(path)
    if not text.strip():
        raise ZssError(f"{path}: the file is empty; export it again")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        reason = getattr(error, "msg", "nested too deeply")
        raise ZssError(f"{path}: {where}no JSON ({reason}); export it again") from None


def validated(path: Path, kind: type[T], data: Any) -> T:
    """Data as what ``kind`` says; raises ZssError with the first entry that is something else."""
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the file"
    raise ZssError(f"{path}: {place}: {first['msg'].lower()}; export it again, or correct the file")


# Once per type: results of Label Studio are checked one by one.
_adapter = functools.cache(TypeAdapter)
