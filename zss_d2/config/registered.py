"""Parts that a config key chooses by name, out of a registry that anybody may add to."""

from __future__ import annotations

from typing import Any

from detectron2.utils.registry import Registry

from zss_d2.config.values import shown
from zss_d2.errors import ZssError


def find(registry: Registry, name: str, key: str) -> Any:
    """What is registered under a name.

    Args:
        key: that the name is the value of, for the message.

    Raises:
        ZssError: nothing is; lists the names.
    """
    if name not in registry:
        raise ZssError(f"{key} is {shown(name)}; use one of {listing(registry)}")
    return registry.get(name)


def listing(registry: Registry) -> str:
    """The registered names, for a message."""
    return ", ".join(repr(name) for name, _ in registry)
