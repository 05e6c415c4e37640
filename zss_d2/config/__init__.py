"""Config keys, their defaults, and the rules for their values."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zss_d2.config.defaults import add_zss_config, default_config
    from zss_d2.config.methods import register_method_config

_HOMES = {
    "add_zss_config": "defaults",
    "default_config": "defaults",
    "register_method_config": "methods",
}
__all__ = ["add_zss_config", "default_config", "register_method_config"]


def __getattr__(name: str) -> Any:
    # Loaded late: the other modules of this package serve commands that need no Detectron2.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
