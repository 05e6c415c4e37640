"""Configuration nodes, and constructors that can be called with one."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from detectron2.config.defaults import DEFAULTS
from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as _CfgNode


class CfgNode(_CfgNode):
    """fvcore's node (``_BASE_``, freeze, merge, dump) that reads files of one version only."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a yaml file; ``allow_unsafe`` (on by default in upstream) runs its python tags.

        Raises AssertionError for a file that is absent or states another ``VERSION``, KeyError for
        a key that this config lacks, ``yaml.constructor.ConstructorError`` for python tags.
        """
        assert PathManager.isfile(cfg_filename), f"config file {cfg_filename!r} does not exist"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", self.VERSION)
        assert version == self.VERSION, f"{cfg_filename!r} is VERSION {version}, not {self.VERSION}"
        self.merge_from_other_cfg(loaded)


def get_cfg() -> CfgNode:
    """A fresh copy of the defaults."""
    return CfgNode(DEFAULTS)


def configurable(
    init_func: Callable[..., None] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Let a constructor or function with explicit arguments also be called with a config.

    ``@configurable`` goes on ``__init__`` of a class with a classmethod ``from_config(cfg, ...)``,
    ``@configurable(from_config=f)`` on a function. ``from_config`` returns keyword arguments. In a
    call whose first argument or ``cfg=`` is a :class:`CfgNode`, arguments go to ``from_config``,
    but keywords that it does not take override what it returns. Other calls are left alone.

    Raises AttributeError if there is no ``from_config``, TypeError if it is no classmethod or its
    first argument is not ``cfg``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        assert from_config or function.__name__ == "__init__", f"{function}: give from_config=f"

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if from_config is not None:
                args, kwargs = _explicit(from_config, args, kwargs)
                return function(*args, **kwargs)
            instance, *args = args
            args, kwargs = _explicit(_class_from_config(type(instance)), args, kwargs)
            return function(instance, *args, **kwargs)

        wrapped.from_config = from_config
        return wrapped

    return decorate if init_func is None else decorate(init_func)


def _class_from_config(owner: type) -> Callable[..., dict[str, Any]]:
    if not hasattr(owner, "from_config"):
        raise AttributeError(f"{owner.__name__} is @configurable but has no from_config")
    if not inspect.ismethod(owner.from_config):
        raise TypeError(f"{owner.__name__}.from_config must be a classmethod")
    return owner.from_config


def _explicit(
    from_config: Callable[..., dict[str, Any]], args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Arguments for the wrapped callable: as they came, or translated if there is a config."""
    if not any(isinstance(given, _CfgNode) for given in (*args[:1], kwargs.get("cfg"))):
        return args, kwargs
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"the first argument of {from_config.__qualname__} must be named cfg")
    takes_all = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    known = {name: value for name, value in kwargs.items() if takes_all or name in parameters}
    overrides = {name: value for name, value in kwargs.items() if name not in known}
    return (), {**from_config(*args, **known), **overrides}
