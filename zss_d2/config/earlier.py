"""What earlier versions wrote into the config of a run, and what became of their keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zss_d2.config.rules import load_rules
from zss_d2.config.values import flatten

logger = logging.getLogger(__name__)


def updated(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of a run, which name every key, with the keys and values of this version.

    Args:
        settings: nested.
        source: of the settings, for a warning of what is read as something else.

    Returns:
        {dotted key: value}.
    """
    rules = load_rules()
    found = rules.current(flatten(settings))
    for key, (was, now) in rules.earlier.items():
        if key in found and found[key] == was:
            logger.warning(
                "%s is of an earlier version: %s %s is read as %s", source, key, was, now
            )
            found[key] = now
    return found


def gone(key: str) -> str:
    """What became of a key of earlier versions, and what to do; empty for one that never was."""
    rules = load_rules()
    if key in rules.renamed:
        return f"{key} is now {rules.renamed[key]}; use that name"
    if key in rules.removed:
        return f"{key} was removed, as {rules.removed[key][1]}; leave it out"
    return ""
