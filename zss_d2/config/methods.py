"""Config keys of single methods and their rules: those in this package, and those of anybody else.

A method of this package has a folder in ``modeling/methods`` with ``defaults.yaml`` and
``rules.yaml``, which are found there. A method from elsewhere calls `register_method_config`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zss_d2.config.checks import ALWAYS, WITH_EFFECT
from zss_d2.config.values import value_of
from zss_d2.config.yaml_file import read_yaml
from zss_d2.errors import ZssError

_METHODS = Path(__file__).parent.parent / "modeling" / "methods"
# What the rules of a method hold beside rules of its keys.
SECTIONS = ("ignores", "backbones", "resume", "renamed", "removed")
# Nodes of the config beside MODEL.<METHOD>, which rules of a method may speak of.
SHARED = ("MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER", "TEST", "ZERO_SHOT")


@dataclass(frozen=True, eq=False)
class MethodConfig:
    """What the config has for one method.

    Attributes:
        name: in lower case; its keys are ``MODEL.<NAME>``, and ``MODEL.META_ARCHITECTURE`` is the
            name without underscores, in any case.
        defaults: nested keys and values.
        rules: see `zss_d2.config.rules`.
    """

    name: str
    defaults: Mapping[str, Any]
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> str:
        return f"MODEL.{self.name.upper()}"


_registered: dict[str, MethodConfig] = {}


def register_method_config(
    name: str, defaults: Path | Mapping[str, Any], rules: Path | Mapping[str, Any] | None = None
) -> None:
    """Give a method from outside this package keys of its own; doing so again replaces them.

    To be called on import of the method, before a config is read.

    Args:
        name: such as ``my_method`` for the meta-architecture ``MyMethod``, with keys
            ``MODEL.MY_METHOD.*``.
        defaults: the keys and their defaults, or a yaml file of them.
        rules: what their values may be, in the grammar of `zss_d2.config.rules`, or a yaml file.

    Raises:
        ZssError: the name is no such name, or that of a method of this package; a rule is of no
            known kind or for no such key; a file cannot be read.
    """
    if not name.isidentifier() or name != name.lower():
        raise ZssError(f"method {name!r}: give a name such as 'my_method'")
    if name in [method.name for method in _own_methods()]:
        raise ZssError(f"method {name!r} is one of zss_d2; give another name")
    method = MethodConfig(name, _content(defaults), _content(rules or {}))
    _check_rules(method)
    _registered[name] = method


def known_methods() -> tuple[MethodConfig, ...]:
    """All of them, those of this package first."""
    return (*_own_methods(), *_registered.values())


@functools.cache
def _own_methods() -> tuple[MethodConfig, ...]:
    return tuple(
        MethodConfig(path.parent.name, _content(path), _content(path.with_name("rules.yaml")))
        for path in sorted(_METHODS.glob("*/defaults.yaml"))
    )


def _check_rules(method: MethodConfig) -> None:
    kinds = ("needs", "needs_any", *ALWAYS, *WITH_EFFECT)
    where = f"rules of method {method.name!r}"
    for key, rule in method.rules.items():
        if key in SECTIONS:
            continue
        if key.split(".")[0] not in SHARED and value_of(method.defaults, key) is None:
            raise ZssError(f"{where}: there is no key {key}; name one of its defaults")
        for kind in rule:
            if kind not in kinds:
                raise ZssError(f"{where}: {key} has {kind!r}; use one of {', '.join(kinds)}")


def _content(source: Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    content = read_yaml(Path(source), "the keys of a method")[1]
    if not isinstance(content, Mapping):
        raise ZssError(f"{source}: it holds no keys of a method; write lines of KEY: VALUE")
    return content
