"""Name -> object look-ups."""

from __future__ import annotations

import pkgutil
from typing import Any

from fvcore.common.registry import Registry as Registry


def locate(name: str) -> Any:
    """The object with dotted path ``name``; ImportError if there is none."""
    try:
        return pkgutil.resolve_name(name)
    except AttributeError as error:
        raise ImportError(f"there is no object {name!r}") from error
