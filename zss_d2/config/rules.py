"""Rules for config values: what they may be, and when a key that is set has an effect.

They are data. ``rules.yaml`` beside this file has those of shared keys, ``rules.yaml`` in
the folder of a method those of its own, with keys below ``MODEL.<METHOD>``, as in its
``defaults.yaml``, and what it makes of shared keys::

    NUM_HEADS: {range: "[1, inf)"}                 # an interval; of a list, for each of its items
    MASK_HEAD: {choices: [cosine, attention]}
    HEAD: {registered: "my_package.heads:HEADS"}   # a name in a registry
    WINDOWS: {range: "[1, inf)", length: "[1, inf)", integer: numbers}
    ROUTE_TOPK: {range: "[1, inf)", at_most: WINDOWS * WINDOWS, needs: {ORDER: [route]}}

The checks are those of `zss_d2.config.checks`. ``needs`` says under which values of other keys this
one is read at all: an interval, a list of values (for a list, one of them must be in it), or
``{regex: ..., words: ...}`` for text; with
``needs_any`` one of them is enough. A key is not read either where a key that it needs is not. Such
a key is refused where somebody *gives* it without effect. It may stay in a base config whose
feature somebody turns off, and its relations to other keys do not matter then.

Keys of earlier versions stand there too: ``renamed: {OLD: NEW}``, and ``removed: {OLD: {was: value,
why: text}}``, where ``was`` is the value of runs that did not use it (`zss_d2.config.earlier`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from zss_d2.config.checks import ALWAYS, RELATIONS, WITH_EFFECT, factors_of, in_words, meets
from zss_d2.config.methods import SHARED, MethodConfig, known_methods
from zss_d2.config.values import flatten, shown, value_of
from zss_d2.errors import ZssError

_RULES = Path(__file__).parent / "rules.yaml"


@dataclass(frozen=True)
class Demand:
    """A check of `zss_d2.config.checks`, what it wants, and the other keys that it looks at."""

    check: str
    wanted: Any
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What holds for one key, or for all keys below one; see the module.

    Args:
        method: in lower case, the only one that the rule is for; empty: all.
    """

    key: str
    needs: Mapping[str, Any] = field(default_factory=dict)
    needs_any: Mapping[str, Any] = field(default_factory=dict)
    demands: tuple[Demand, ...] = ()
    method: str = ""


@dataclass(frozen=True)
class Rules:
    """All rules of one config.

    Args:
        rules: of single keys.
        used: keys of Detectron2's defaults, or nodes of them, that this project reads.
        instead: key of Detectron2 -> what to use here.
        ignores: method, in lower case -> nodes and keys that it does not read.
        backbones: this project's own, which read none of Detectron2's keys for backbones.
        free, adjustable: keys and nodes, see `resume_changes`.
        earlier: key -> what earlier versions wrote into every config.yaml, what that is now.
        renamed: key of earlier versions -> what it is called now.
        removed: key of earlier versions -> its value where it was not used, why it went.
    """

    rules: tuple[Rule, ...]
    used: tuple[str, ...]
    instead: Mapping[str, str]
    ignores: Mapping[str, tuple[str, ...]]
    backbones: tuple[str, ...]
    free: tuple[str, ...]
    adjustable: tuple[str, ...]
    earlier: Mapping[str, tuple[Any, Any]]
    renamed: Mapping[str, str]
    removed: Mapping[str, tuple[Any, str]]

    def of(self, key: str, method: str) -> list[Rule]:
        """The rules that speak of a key under a method."""
        return [
            rule
            for rule in self.rules
            if below(key, [rule.key]) and rule.method in ("", _plain_name(method))
        ]

    def current(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a run of an earlier version, {dotted key: value}, under today's keys.

        A key that was removed goes if the run did not use it, and stays otherwise, under its new
        name if it has one.
        """
        unused = {key for key, (was, _) in self.removed.items() if settings.get(key, was) == was}
        return {self.renamed.get(k, k): value for k, value in settings.items() if k not in unused}


@dataclass(frozen=True)
class ResumeChanges:
    """Where the config of a run that is resumed differs: {key: (old value, new value)}.

    Args:
        free: nothing that is learnt depends on these.
        adjustable: these hold from there on.
        fixed: with another value of these it is another run.
    """

    free: dict[str, tuple[Any, Any]]
    adjustable: dict[str, tuple[Any, Any]]
    fixed: dict[str, tuple[Any, Any]]


def load_rules() -> Rules:
    """Read the rules of shared keys and of every method."""
    return _build(known_methods())


@lru_cache(maxsize=1)
def _build(methods: tuple[MethodConfig, ...]) -> Rules:
    shared = yaml.safe_load(_RULES.read_text(encoding="utf-8"))
    rules = [_rule(key, content) for key, content in shared["rules"].items()]
    free, adjustable = list(shared["resume"]["free"]), list(shared["resume"]["adjustable"])
    ignores, backbones = {}, []
    renamed = dict(shared["renamed"])
    removed = {old: (key["was"], key["why"]) for old, key in shared["removed"].items()}
    for method in methods:
        content, node = dict(method.rules), method.node
        others = [other.node for other in methods if other is not method]
        ignores[_plain_name(method.name)] = (*others, *content.pop("ignores", ()))
        backbones += content.pop("backbones", ())
        resume = content.pop("resume", {})
        free += [f"{node}.{key}" for key in resume.get("free", ())]
        adjustable += [f"{node}.{key}" for key in resume.get("adjustable", ())]
        for old, new in content.pop("renamed", {}).items():
            renamed[f"{node}.{old}"] = f"{node}.{new}"
        for old, key in content.pop("removed", {}).items():
            removed[f"{node}.{old}"] = (key["was"], key["why"])
        rules += [_rule(key, item, method) for key, item in content.items()]
    return Rules(
        tuple(rules),
        tuple(shared["used"]),
        shared["instead"],
        ignores,
        tuple(backbones),
        tuple(free),
        tuple(adjustable),
        {key: tuple(values) for key, values in shared["earlier"].items()},
        renamed,
        removed,
    )


def _plain_name(method: str) -> str:
    """One name for a method's folder, node and class."""
    return method.replace("_", "").lower()


def _rule(key: str, content: Mapping[str, Any], method: MethodConfig | None = None) -> Rule:
    def absolute(name: str) -> str:
        shared = method is None or name.split(".")[0] in SHARED
        return name if shared else f"{method.node}.{name}"

    def demand(check: str, wanted: Any) -> Demand:
        if check not in RELATIONS:
            return Demand(check, wanted)
        others = tuple(map(absolute, factors_of(wanted)))
        return Demand(check, " * ".join(others), others)

    needs = {absolute(other): wanted for other, wanted in content.get("needs", {}).items()}
    needs_any = {absolute(other): wanted for other, wanted in content.get("needs_any", {}).items()}
    demands = [
        demand(check, wanted)
        for check, given in content.items()
        if check not in ("needs", "needs_any")
        for wanted in (given if check in RELATIONS and isinstance(given, list) else [given])
    ]
    own = _plain_name(method.name) if method and absolute(key) == key else ""
    return Rule(absolute(key), needs, needs_any, tuple(demands), own)


def check_values(cfg: CfgNode) -> None:
    """Raise `ZssError` for the first value that its rule does not allow."""
    rules, method = load_rules(), _plain_name(cfg.MODEL.META_ARCHITECTURE)
    for rule in rules.rules:
        value = value_of(cfg, rule.key)
        if value is None or rule.method not in ("", method):
            continue
        for demand in rule.demands:
            check = ALWAYS.get(demand.check)
            if check is None:
                keys = (rule.key, *demand.others)
                if any(_why_without_effect(cfg, key, rules) for key in keys):
                    continue
                check = WITH_EFFECT[demand.check]
            if complaint := check(cfg, value, demand.wanted):
                raise ZssError(f"{rule.key} is {shown(value)}{complaint}")


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
        if plain(value) == plain(value_of(defaults, key)):
            continue
        if key in upstream and _is_unread(cfg, key, rules):
            remedy = next((text for k, text in rules.instead.items() if below(key, [k])), "")
            raise ZssError(
                f"{key} is set to {shown(value)}, a key of Detectron2 that has no effect here; "
                f"{remedy or 'leave it out'}"
            )
        if key in given and (reason := _why_without_effect(cfg, key, rules)):
            raise ZssError(f"{key} is set to {shown(value)} but has no effect: {reason}")


def without_effect(cfg: CfgNode, keys: Collection[str]) -> set[str]:
    """Those of the ``keys`` that nothing reads under this config."""
    rules = load_rules()
    return {key for key in keys if _why_without_effect(cfg, key, rules)}


def resume_changes(old: Mapping[str, Any], new: CfgNode, defaults: CfgNode) -> ResumeChanges:
    """Compare the config that a run was started with and the one that it is to go on with.

    Keys that have no effect in the run are free. Keys that are unknown here are not compared, but
    one that was removed and that the run used is fixed.

    Args:
        old: nested, or flat with dotted keys; a key that it lacks had its default.
        new: the merged config.
        defaults: the config before anything was merged.
    """
    rules = load_rules()
    before = rules.current(flatten(old))
    upstream = set(flatten(get_cfg()))
    used = {key: (before[key], None) for key in rules.removed if key in before}
    changes = ResumeChanges({}, {}, used)
    for key, value in flatten(new).items():
        earlier = before.get(key, value_of(defaults, key))
        if plain(earlier) == plain(value):
            continue
        if (key in upstream and _is_unread(new, key, rules)) or _why_without_effect(
            new, key, rules
        ):
            kind = changes.free
        else:
            free, adjustable = _depth(key, rules.free), _depth(key, rules.adjustable)
            innermost = changes.free if free > adjustable else changes.adjustable
            kind = innermost if free or adjustable else changes.fixed
        kind[key] = (earlier, value)
    return changes


def _depth(key: str, nodes: Collection[str]) -> int:
    """Length of the innermost of the nodes that the key is below, or 0."""
    return max((len(node) for node in nodes if below(key, [node])), default=0)


def _is_unread(cfg: CfgNode, key: str, rules: Rules) -> bool:
    """Whether nothing here reads a key of Detectron2's own config."""
    return not below(key, rules.used) and not _of_other_parts(cfg, key, rules)


def _of_other_parts(cfg: CfgNode, key: str, rules: Rules) -> bool:
    """Whether a part that is not this project's, a method or a backbone, may read the key."""
    ignored = rules.ignores.get(_plain_name(cfg.MODEL.META_ARCHITECTURE))
    if ignored is None:
        return key.startswith("MODEL.")
    if "MODEL.BACKBONE.NAME" in ignored or cfg.MODEL.BACKBONE.NAME in rules.backbones:
        return False
    return below(key, ["MODEL.BACKBONE", "MODEL.RESNETS", "MODEL.FPN"])


def _why_without_effect(cfg: CfgNode, key: str, rules: Rules) -> str:
    """The reason and what to do; empty if the key has an effect."""
    method = cfg.MODEL.META_ARCHITECTURE
    ignored = rules.ignores.get(_plain_name(method), ())
    if below(key, ignored):
        return f"MODEL.META_ARCHITECTURE is {method!r}, which does not read it; leave it out"
    for rule in rules.of(key, method):
        unmet = [_why_unmet(cfg, *need, rules) for need in rule.needs.items()]
        of_any = [_why_unmet(cfg, *need, rules) for need in rule.needs_any.items()]
        if of_any and all(of_any):
            unmet += of_any
        if reason := next(filter(None, unmet), ""):
            return reason
    return ""


def _why_unmet(cfg: CfgNode, other: str, wanted: Any, rules: Rules) -> str:
    """Why a key that is needed is not as wanted; empty if it is, or if the method ignores it."""
    if below(other, rules.ignores.get(_plain_name(cfg.MODEL.META_ARCHITECTURE), ())):
        return ""
    value = value_of(cfg, other)
    if meets(value, wanted):
        return _why_without_effect(cfg, other, rules)
    return f"{other} is {shown(value)}; {_remedy(other, wanted)}"


def _remedy(other: str, wanted: Any) -> str:
    if isinstance(wanted, Mapping):
        value = wanted["words"]
    else:
        value = f"to {in_words(wanted)}" if isinstance(wanted, str) else repr(wanted[0])
    return f"leave it out, or set {other} {value}"


def plain(value: Any) -> Any:
    """Lists for tuples: a config that was written and read again has other ones."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def below(key: str, nodes: Collection[str]) -> bool:
    """Whether a dotted key is one of the nodes or stands in one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
