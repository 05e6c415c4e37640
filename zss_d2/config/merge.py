"""Writes the values of yaml files and command lines into a config, as `converted` reads them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from zss_d2.config.earlier import gone
from zss_d2.config.rules import load_rules
from zss_d2.config.values import converted, decode, flatten, number, shown, value_of
from zss_d2.errors import ZssError


def merge_nested(cfg: CfgNode, content: Mapping[str, Any], source: str) -> None:
    """Write nested values, as a yaml file has them, into ``cfg``.

    Args:
        source: of the values, for messages.

    Raises:
        ZssError: unknown key, or a value that cannot be that of its key.
    """
    _merge(cfg, cfg, content, source, "")


def _merge(root: CfgNode, node: CfgNode, content: Mapping, source: str, prefix: str) -> None:
    for name, written in content.items():
        key = f"{prefix}{name}"
        if name not in node and node.is_new_allowed():
            node[name] = CfgNode(written) if isinstance(written, Mapping) else decode(written)
        elif isinstance(node.get(name), CfgNode) and isinstance(written, Mapping):
            _merge(root, node[name], written, source, f"{key}.")
        else:
            set_value(root, key, written, source)


def set_value(cfg: CfgNode, key: str, written: Any, source: str) -> None:
    """Write the value of one dotted key; raises ZssError as `merge_nested` does."""
    parent, _, name = key.rpartition(".")
    node = value_of(cfg, parent) if parent else cfg
    if not isinstance(node, CfgNode) or name not in node:
        raise ZssError(f"{source}: {gone(key) or f'there is no key {key[:80]}{_hint(cfg, key)}'}")
    if isinstance(node[name], CfgNode):
        first = next(iter(node[name]), "KEY")
        raise ZssError(
            f"{source}: {key} is {shown(written)}, but it is a group of keys, such as "
            f"{key}.{first}; set one of those"
        )
    try:
        node[name] = _of_key(key, written, node[name])
    except ValueError as error:
        raise ZssError(f"{source}: {key} is {shown(written)}; give {error}") from None


def _of_key(key: str, written: Any, default: Any) -> Any:
    demands = {
        demand.check: demand.wanted
        for rule in load_rules().rules
        if rule.key == key
        for demand in rule.demands
    }
    value = converted(written, default, demands.get("choices", ()))
    if isinstance(value, (list, tuple)) and demands.keys() & {"range", "integer"}:
        return type(value)(_number_if_one(item, "integer" in demands) for item in value)
    return value


def _number_if_one(item: Any, whole: bool) -> Any:
    """An item of a list as the list wants its numbers, if it can be that; rules judge the rest."""
    try:
        return number(item, whole)
    except ValueError:
        return item


def _hint(cfg: CfgNode, key: str) -> str:
    keys = list(flatten(cfg))
    nodes = {key.rsplit(".", cut)[0] for key in keys for cut in range(1, key.count(".") + 1)}
    known = [*keys, *sorted(nodes)]
    same = [other for other in known if other.upper().endswith(f".{key.upper()}")]
    if near := same or difflib.get_close_matches(key, known, n=1, cutoff=0.7):
        return f"; did you mean {near[0]}?"
    return "; the keys are in zss_d2/config/defaults.py and in defaults.yaml of every method"
