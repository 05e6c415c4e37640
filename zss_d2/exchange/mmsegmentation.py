"""Checkpoints of MMSegmentation: ``{"meta", "state_dict"}``, and the config that ``meta`` quotes.

That config is Python code. It is parsed, and of what it assigns only literals are taken, lists,
dicts and calls of ``dict``, as data: nothing of it is run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from zss_d2.clip.weights.file import read_file, tensors_of

# More than any config; what is longer is not looked at.
_LONGEST = 1 << 20


class Released(NamedTuple):
    """What a checkpoint of MMSegmentation says."""

    state: dict[str, Tensor]
    classes: tuple[str, ...]  # () if it does not say
    config: Mapping[str, Any]  # what `parse_config` finds in it
    iteration: int | None  # finished ones
    others: tuple[str, ...]  # entries that are not read, such as the state of an optimizer
    entries: Mapping[str, Any]  # the whole file


def read_checkpoint(path: Path, key: str) -> Released:
    """Read a checkpoint, as data only; one without ``meta`` is a state dict.

    Beside tensors, the pickle may hold plain values, lists, dicts, and single numbers of numpy.

    Args:
        key: what names the file in messages.

    Raises:
        ZssError: as `read_file` and `tensors_of`.
    """
    entries = read_file(path, key).entries
    state = tensors_of(entries, path, key)
    meta = entries.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    classes = meta.get("CLASSES")
    iteration = meta.get("iter")
    text = meta.get("config")
    return Released(
        state,
        tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else (),
        parse_config(text) if isinstance(text, str) else {},
        int(iteration) if isinstance(iteration, int) else None,
        tuple(str(x) for x in entries if x not in ("meta", "state_dict")) if meta else (),
        entries,
    )


def parse_config(text: str) -> dict[str, Any]:
    """{name: value} of the literals that the text of a config assigns; others are left out."""
    if len(text) > _LONGEST:
        return {}
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    for line in module.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            value = _value(line.value, found)
            if value is not _UNKNOWN:
                found[line.targets[0].id] = value
    return found


_UNKNOWN = object()


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names.get(name, _UNKNOWN)
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.List(items) | ast.Tuple(items):
            values = [_value(x, names) for x in items]
            return _UNKNOWN if _UNKNOWN in values else values
        case ast.Dict(keys, items):
            given = {
                k.value: x for k, x in zip(keys, items, strict=True) if isinstance(k, ast.Constant)
            }
            return _known(given, names)
        case ast.Call(ast.Name("dict"), [], given):
            return _known({x.arg: x.value for x in given if x.arg}, names)
    return _UNKNOWN


def _known(given: Mapping[Any, ast.expr], names: Mapping[str, Any]) -> dict[Any, Any]:
    values = {key: _value(node, names) for key, node in given.items()}
    return {key: value for key, value in values.items() if value is not _UNKNOWN}
