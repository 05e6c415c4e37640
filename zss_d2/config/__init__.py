"""Config keys, their defaults, and the rules for their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zss_d2.config.defaults import add_zss_config, default_config

__all__ = ["add_zss_config", "default_config"]


def __getattr__(name: str) -> Any:
    # Loaded late: the other modules of this package serve commands that need no Detectron2.
    if name in __all__:
        from zss_d2.config import defaults

        return getattr(defaults, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
