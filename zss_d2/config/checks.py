"""What a rule may demand of a value: intervals, and relations to other values.

Each check is a function of the config, a value in it and what the rule says. It returns the rest of
a sentence that begins with "KEY is VALUE", what is wrong and what to do, or nothing.
"""

from __future__ import annotations

import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zss_d2.config.registered import listing
from zss_d2.config.values import shown, value_of

_INTERVAL = re.compile(r"([\[(])\s*(-?[\w.]+)\s*,\s*(-?[\w.]+)\s*([\])])")


def within(value: Any, interval: str) -> bool:
    """Whether a number lies in an interval such as ``[0, 1)`` or ``(0, inf)``; NaN lies in none."""
    left, low, high, right = _INTERVAL.fullmatch(interval).groups()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    above = value >= float(low) if left == "[" else value > float(low)
    return above and (value <= float(high) if right == "]" else value < float(high))


def in_words(interval: str) -> str:
    """The interval for a message."""
    left, low, high, right = _INTERVAL.fullmatch(interval).groups()
    if low == high:
        return low
    if low == "-inf":
        start = "any number"
    else:
        start = f"{low} or more" if left == "[" else f"more than {low}"
    if high == "inf":
        return start
    end = high if right == "]" else f"less than {high}"
    if low == "-inf":
        return f"{end} or less" if right == "]" else end
    return f"{low} to {end}" if left == "[" else f"{start}, up to {end}"


def meets(value: Any, wanted: Any) -> bool:
    """Whether a value is as wanted: in an interval, one of a list, or text matching ``regex``.

    Of a value that is a list, it or one of its items must be in the list.
    """
    if isinstance(wanted, str):
        return within(value, wanted)
    if isinstance(wanted, Mapping):
        return re.fullmatch(wanted["regex"], value) is not None
    if isinstance(value, (list, tuple)):
        return list(value) in wanted or any(item in wanted for item in value)
    return value in wanted


def items_of(value: Any) -> list[Any]:
    """The items of a list; of anything else, itself."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_length(cfg: Mapping, value: Sequence[Any], wanted: str) -> str:
    """The number of items of a list lies in the interval."""
    return "" if within(len(value), wanted) else f"; give {in_words(wanted)} values"


def check_range(cfg: Mapping, value: Any, wanted: str) -> str:
    """A number, or every item of a list, lies in the interval."""
    inside = all(within(item, wanted) for item in items_of(value))
    return "" if inside else f"; use {in_words(wanted)}"


def check_choices(cfg: Mapping, value: Any, wanted: Sequence[Any]) -> str:
    """A value, or every item of a list, is one of these."""
    known = all(item in wanted for item in items_of(value))
    return "" if known else f"; use one of {', '.join(map(repr, wanted))}"


def check_registered(cfg: Mapping, value: str, wanted: str) -> str:
    """A name in the registry ``module:REGISTRY``, which anybody may add to."""
    registry = pkgutil.resolve_name(wanted)
    return "" if value in registry else f"; use one of {listing(registry)}"


def check_pattern(cfg: Mapping, value: Any, wanted: Mapping[str, str]) -> str:
    """Text matches ``regex``, which ``words`` describe."""
    return "" if re.fullmatch(wanted["regex"], value) else f"; use {wanted['words']}"


def check_items(cfg: Mapping, value: Any, wanted: str | Sequence[str]) -> str:
    """Every item is ``text``, a list of ``texts``, or one whose items are as listed."""
    if wanted == "text":
        fits = all(isinstance(item, str) and item for item in value)
        return "" if fits else "; give a list of texts"
    if wanted == "texts":
        fits = all(
            isinstance(item, (list, tuple))
            and len(item) > 1
            and all(isinstance(part, str) and part for part in item)
            for item in value
        )
        return "" if fits else "; give a list of lists of two texts or more"
    fits = all(_is_list_of(item, wanted) for item in value)
    kinds = ", ".join(kind if kind == "text" else in_words(kind) for kind in wanted)
    return "" if fits else f"; give a list of lists [{kinds}]"


def _is_list_of(item: Any, kinds: Sequence[str]) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == len(kinds)
        and all(
            isinstance(part, str) if kind == "text" else within(part, kind)
            for part, kind in zip(item, kinds, strict=True)
        )
    )


def check_integer(cfg: Mapping, value: Sequence[Any], wanted: str) -> str:
    """Every item of a list is a whole number, of what is said."""
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    return "" if whole else f"; give whole {wanted}"


def check_unique(cfg: Mapping, value: Sequence[Any], wanted: bool) -> str:
    """No item occurs twice; of items that are lists, the first part is compared."""
    names = [item[0] if isinstance(item, (list, tuple)) else item for item in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    return "" if twice is None else f"; name {twice!r} once"


def check_ascending(cfg: Mapping, value: Sequence[float], wanted: bool) -> str:
    """No item is smaller than the one before."""
    return "" if list(value) == sorted(value) else "; give the smaller one first"


def check_at_most(cfg: Mapping, value: float, wanted: str) -> str:
    """Not above another key, the smallest item of it, or a product of keys: ``A * A``."""
    factors = [min(items_of(value_of(cfg, name))) for name in factors_of(wanted)]
    limit = math.prod(factors)
    if value <= limit:
        return ""
    product = "" if len(factors) == 1 else f" = {' x '.join(map(str, factors))}"
    return f", above {wanted}, {shown(limit)}{product}; lower it"


def factors_of(product: str) -> list[str]:
    """The keys in a product such as ``A * A``."""
    return [name.strip() for name in product.split("*")]


def check_multiple_of(cfg: Mapping, value: int, wanted: str) -> str:
    """A multiple of another key, unless that is 0."""
    step = value_of(cfg, wanted)
    return f"; give a multiple of {wanted}, {shown(step)}" if step and value % step else ""


def check_positive_with(cfg: Mapping, value: float, wanted: str) -> str:
    """Not 0 together with another key."""
    both = value == 0 and value_of(cfg, wanted) == 0
    return f" and so is {wanted}: nothing would be learnt; raise one of them" if both else ""


def check_requires(cfg: Mapping, value: Any, wanted: Sequence[Mapping[str, Any]]) -> str:
    """If it is on, ``key``s are as ``wanted``; if not, ``remedy`` says what to do."""
    for needed in wanted if value else ():
        there = value_of(cfg, needed["key"])
        if not meets(there, needed["wanted"]):
            return f" and {needed['key']} is {shown(there)}; {needed['remedy']}"
    return ""


Check = Callable[[Mapping, Any, Any], str]
# Those that look at the value alone hold whether or not it has an effect.
ALWAYS: dict[str, Check] = {
    "length": check_length,
    "range": check_range,
    "choices": check_choices,
    "registered": check_registered,
    "pattern": check_pattern,
    "items": check_items,
}
WITH_EFFECT: dict[str, Check] = {
    "integer": check_integer,
    "unique": check_unique,
    "ascending": check_ascending,
    "at_most": check_at_most,
    "multiple_of": check_multiple_of,
    "positive_with": check_positive_with,
    "requires": check_requires,
}
# Those that compare with other keys, which their rule names.
RELATIONS = ("at_most", "multiple_of", "positive_with")
