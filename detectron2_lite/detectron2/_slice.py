"""Make everything this distribution leaves out fail with a text that says how to get it."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

UPSTREAM = (
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
)


def describe_missing(name: str) -> str:
    """Text for the dotted ``name`` of something that only upstream Detectron2 has."""
    return f"{name} is not part of detectron2_lite; install upstream Detectron2 for it: {UPSTREAM}"


def guard(module: ModuleType) -> None:
    """Give a module the ``__getattr__`` that carries the hint."""

    def fallback(name: str) -> list[str]:
        if name == "__path__":
            # Asked of plain modules only. The empty path makes ``from module import x`` ask our
            # finder for ``module.x``; otherwise it ends in Python's own text, without the hint.
            return []
        if name.startswith("__"):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        raise AttributeError(describe_missing(f"{module.__name__}.{name}"))

    module.__getattr__ = fallback


class _GuardingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        guard(module)


class _Finder(MetaPathFinder):
    """Loads and guards the submodules of this package; refuses those that do not exist."""

    def find_spec(
        self, fullname: str, path: list[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("detectron2."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None:
            # Not ModuleNotFoundError: the import system swallows that for ``from a import b``.
            raise ImportError(describe_missing(fullname), name=fullname)
        spec.loader = _GuardingLoader(fullname, spec.origin)
        return spec


def install() -> None:
    """Guard the package and every submodule imported from now on."""
    sys.meta_path.insert(0, _Finder())
    guard(sys.modules["detectron2"])
