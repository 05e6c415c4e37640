"""Rules for config values: what they may be, and when a key that is set has an effect.

They are data. ``config_rules.yaml`` beside this file has those of shared keys, ``rules.yaml`` in
the folder of a method those of its own, with keys below ``MODEL.<METHOD>``, as in its
``defaults.yaml``::

    NUM_HEADS: {range: "[1, inf)"}                 # an interval; of a list, for each of its items
    MASK_HEAD: {choices: [cosine, dot]}
    WINDOWS: {range: "[1, inf)", length: "[1, inf)"}
    ROUTE_TOPK: {range: "[1, inf)", needs: {ORDER: [route]}}

``needs`` says under which values of another key this one is read at all: an interval, or a list of
values (for a list, one of them must be in it). Such a key is refused where somebody *gives* it
without effect. It may stay in a base config whose feature somebody turns off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from zss_d2.errors import ZssError

_RULES = Path(__file__).parent / "config_rules.yaml"
_METHODS = Path(__file__).parent / "modeling" / "methods"
_INTERVAL = re.compile(r"([\[(])\s*(-?[\w.]+)\s*,\s*(-?[\w.]+)\s*([\])])")


@dataclass(frozen=True)
class Rule:
    """What holds for one key, or for all keys below one; see the module."""

    key: str
    range: str = ""
    choices: tuple[Any, ...] = ()
    length: str = ""
    needs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Rules:
    """All rules of one config.

    Args:
        rules: of single keys.
        used: keys of Detectron2's defaults, or nodes of them, that this project reads.
        instead: key of Detectron2 -> what to use here.
        ignores: method, in lower case -> shared nodes and keys that it does not read.
        backbones: this project's own, which read none of Detectron2's keys for backbones.
    """

    rules: tuple[Rule, ...]
    used: tuple[str, ...]
    instead: Mapping[str, str]
    ignores: Mapping[str, tuple[str, ...]]
    backbones: tuple[str, ...]


@cache
def load_rules() -> Rules:
    """Read the rules of shared keys and of every method."""
    shared = yaml.safe_load(_RULES.read_text(encoding="utf-8"))
    rules = [_rule(key, content) for key, content in shared["rules"].items()]
    ignores, backbones = {}, []
    for path in sorted(_METHODS.glob("*/rules.yaml")):
        node = f"MODEL.{path.parent.name.upper()}"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        ignores[path.parent.name.replace("_", "")] = tuple(content.pop("ignores", ()))
        backbones += content.pop("backbones", ())
        rules += [_rule(key, item, node) for key, item in content.items()]
    used, instead = tuple(shared["used"]), shared["instead"]
    return Rules(tuple(rules), used, instead, ignores, tuple(backbones))


def _rule(key: str, content: Mapping[str, Any], node: str = "") -> Rule:
    def absolute(name: str) -> str:
        return f"{node}.{name}" if node and not name.startswith("MODEL.") else name

    needs = {absolute(other): value for other, value in content.get("needs", {}).items()}
    return Rule(
        absolute(key),
        content.get("range", ""),
        tuple(content.get("choices", ())),
        content.get("length", ""),
        needs,
    )


def check_values(cfg: CfgNode) -> None:
    """Raise `ZssError` for the first value that its rule does not allow."""
    for rule in load_rules().rules:
        value = value_of(cfg, rule.key)
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        if rule.length and not within(len(items), rule.length):
            raise ZssError(f"{rule.key} is {value!r}; give {_words(rule.length)} values")
        for item in items:
            shown = f"{rule.key} is {value!r}"
            if rule.range and not within(item, rule.range):
                raise ZssError(f"{shown}; use {_words(rule.range)}")
            if rule.choices and item not in rule.choices:
                raise ZssError(f"{shown}; use one of {', '.join(map(repr, rule.choices))}")


def check_effects(cfg: CfgNode, defaults: CfgNode, given: Collection[str]) -> None:
    """Raise `ZssError` for the first key that is set and has no effect.

    Args:
        cfg: the merged config.
        defaults: the config before anything was merged; a key with its default is not set.
        given: keys that somebody names for this very run, see the module.
    """
    rules = load_rules()
    upstream = set(flatten(get_cfg()))
    for key, value in flatten(cfg).items():
        if _plain(value) == _plain(value_of(defaults, key)):
            continue
        if key in upstream and not _below(key, rules.used) and not _of_other_parts(cfg, key, rules):
            remedy = next((text for k, text in rules.instead.items() if _below(key, [k])), "")
            raise ZssError(
                f"{key} is set to {value!r}, a key of Detectron2 that has no effect here; "
                f"{remedy or 'leave it out'}"
            )
        if key in given and (reason := _why_without_effect(cfg, key, rules)):
            raise ZssError(f"{key} is set to {value!r} but has no effect: {reason}; leave it out")


def without_effect(cfg: CfgNode, keys: Collection[str]) -> set[str]:
    """Those of the ``keys`` that nothing reads under this config."""
    rules = load_rules()
    return {key for key in keys if _why_without_effect(cfg, key, rules)}


def _of_other_parts(cfg: CfgNode, key: str, rules: Rules) -> bool:
    """Whether a part that is not this project's, a method or a backbone, may read the key."""
    ignored = rules.ignores.get(cfg.MODEL.META_ARCHITECTURE.lower())
    if ignored is None:
        return key.startswith("MODEL.")
    if "MODEL.BACKBONE.NAME" in ignored or cfg.MODEL.BACKBONE.NAME in rules.backbones:
        return False
    return _below(key, ["MODEL.BACKBONE", "MODEL.RESNETS", "MODEL.FPN"])


def _why_without_effect(cfg: CfgNode, key: str, rules: Rules) -> str:
    """Empty if the key has an effect."""
    method = cfg.MODEL.META_ARCHITECTURE
    if method.lower() in rules.ignores:
        nodes = {f"MODEL.{path.parent.name.upper()}" for path in _METHODS.glob("*/defaults.yaml")}
        own = f"MODEL.{method.upper()}"
        others = [node for node in nodes if node.replace("_", "") != own]
        if _below(key, [*others, *rules.ignores[method.lower()]]):
            return f"MODEL.META_ARCHITECTURE is {method!r}, which does not read it"
    for rule in rules.rules:
        if not rule.needs or not _below(key, [rule.key]):
            continue
        for other, wanted in rule.needs.items():
            value = value_of(cfg, other)
            if not _meets(value, wanted):
                return f"{other} is {value!r}"
    return ""


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return within(value, wanted)
    if isinstance(value, (list, tuple)):
        return any(item in wanted for item in value)
    return value in wanted


def within(value: Any, interval: str) -> bool:
    """Whether a number lies in an interval such as ``[0, 1)`` or ``(0, inf)``; NaN lies in none."""
    left, low, high, right = _INTERVAL.fullmatch(interval).groups()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return False
    above = value >= float(low) if left == "[" else value > float(low)
    below = value <= float(high) if right == "]" else value < float(high)
    # inf itself is no usable value anywhere.
    return above and below and not math.isinf(value)


def _words(interval: str) -> str:
    left, low, high, right = _INTERVAL.fullmatch(interval).groups()
    if low == high:
        return low
    start = f"{low} or more" if left == "[" else f"more than {low}"
    if high == "inf":
        return start
    end = high if right == "]" else f"less than {high}"
    return f"{low} to {end}" if left == "[" else f"{start}, up to {end}"


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of a config."""
    return dict(_leaves(node, prefix))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for part in key.split("."):
        if not isinstance(cfg, Mapping) or part not in cfg:
            return None
        cfg = cfg[part]
    return cfg


def _plain(value: Any) -> Any:
    """Lists for tuples: a config that was written and read again has other ones."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _below(key: str, nodes: Collection[str]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
