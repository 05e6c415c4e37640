"""Make everything this distribution leaves out fail with a text that says how to get it."""

import functools
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

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


def guard_arguments(owner: ModuleType | type, module: str) -> None:
    """Let public functions of a module, and methods of its classes, carry the hint.

    It is for keywords that only their upstream namesakes take.
    """
    for name, value in list(vars(owner).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(value, (classmethod, staticmethod)):
            if getattr(value.__func__, "__module__", "") == module:
                setattr(owner, name, type(value)(_with_hint(value.__func__)))
        elif getattr(value, "__module__", "") != module:
            continue
        elif isinstance(value, type):
            guard_arguments(value, module)
        elif isinstance(value, FunctionType) or hasattr(value, "cache_clear"):
            setattr(owner, name, _with_hint(value))


def _with_hint(function: Callable[..., Any]) -> Callable[..., Any]:
    refusal = f"{function.__qualname__}() got an unexpected keyword argument "

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if not str(error).startswith(refusal):
                raise
            argument = str(error).removeprefix(refusal)
            place = f"{function.__module__}.{function.__qualname__}"
            raise TypeError(describe_missing(f"the argument {argument} of {place}")) from None

    return call


class _GuardingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        guard(module)
        guard_arguments(module, module.__name__)


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
    """Guard the package and every submodule imported from now on.

    Hooks that others have put in front of Python's own finder stay in front.
    """
    sys.meta_path.insert(sys.meta_path.index(PathFinder), _Finder())
    guard(sys.modules["detectron2"])
