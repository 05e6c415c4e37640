"""What somebody writes for a config key, and the value of the key's own type that it stands for.

Detectron2 insists on the very type of the default. Here a number may be written in any way that
keeps its value (``MIN_LR 0``, ``MAX_ITER 1e4``), a list of one item without brackets, and text on
the command line without quotes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_LIST = """'("a", "b")'"""


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of a config."""
    return dict(_leaves(node, prefix))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_of(cfg: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for part in key.split("."):
        if not isinstance(cfg, Mapping) or part not in cfg:
            return None
        cfg = cfg[part]
    return cfg


def shown(value: Any, length: int = 80) -> str:
    """``repr`` for a message, cut in the middle where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else f"{text[: length - 20]}...{text[-15:]}"


def converted(written: Any, default: Any, choices: Sequence[Any] = ()) -> Any:
    """The value of the default's type that is written.

    Args:
        written: from a yaml file, or the text of the command line.
        choices: of a key of text; with "true" among them, True is read as that.

    Raises:
        ValueError: there is none; says what would be.
    """
    value = decode(written)
    if isinstance(default, bool):
        return _truth(value)
    if isinstance(default, str):
        return _text(written, value, choices)
    if isinstance(default, (int, float)):
        return number(value, whole=isinstance(default, int))
    if isinstance(default, (list, tuple)):
        return _list(value, default)
    return value


def decode(written: Any) -> Any:
    """A python literal for the text of one, anything else as it is."""
    if not isinstance(written, str):
        return written
    if written in ("inf", "-inf", "nan"):
        return float(written)
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return written


def _truth(value: Any) -> bool:
    names = {"true": True, "false": False}
    if str(value).lower() not in names:
        raise ValueError("True or False")
    return names[str(value).lower()]


def _text(written: Any, value: Any, choices: Sequence[Any]) -> str:
    if isinstance(value, bool) and str(value).lower() in choices:
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(written, str):  # such as a folder of the name 2024
        return written
    raise ValueError("text, '' for none" if written is None else "text, in quotes")


def number(value: Any, whole: bool) -> int | float:
    """``value`` as an int or a float; raises ValueError, as `converted` does, if it is none."""
    wanted = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(wanted)
    try:
        result = int(value) if whole else float(value)
    except (ValueError, OverflowError):  # of NaN, infinity, and what is too large
        raise ValueError(wanted) from None
    if whole and result != value:
        raise ValueError(wanted)
    return result


def _list(value: Any, default: Sequence[Any]) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return type(default)(value)
    unfinished = isinstance(value, str) and value.lstrip()[:1] in ("[", "(", "{")
    if unfinished or not isinstance(value, (str, int, float)):
        raise ValueError(f"a list, such as {shown(default) if default else _LIST}")
    return type(default)([value])


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for a message, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
