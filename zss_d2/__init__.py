"""Generalised zero-shot semantic segmentation on Detectron2.

Importing the package makes its data sets and meta-architectures known to Detectron2. They are
registered as soon as Detectron2's catalogs and models are imported, before or after this package,
so that nothing heavy is loaded by a command that needs neither.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from wrapt import when_imported

__version__ = "0.2.0"

# Public names that are loaded when they are asked for.
_LAZY = {"load_model": "zss_d2.api"}
__all__ = ["__version__", *_LAZY]


@when_imported("detectron2.data")
def _register_data_sets(_: ModuleType) -> None:
    import_module("zss_d2.data.spec.registry")


@when_imported("detectron2.modeling")
def _register_methods(_: ModuleType) -> None:
    import_module("zss_d2.modeling")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
