"""What the folder of a run of a sweep holds already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from zss_d2.config import default_config
from zss_d2.config_rules import resume_changes, without_effect
from zss_d2.config_values import shown
from zss_d2.errors import ZssError
from zss_d2.evaluation import read_results
from zss_d2.evaluation.results import PROVENANCE, config_hash
from zss_d2.evaluation.run_files import found_from, read_config
from zss_d2.tools.sweep_plan import Run

# Of the keys that may change while a run goes on, the nodes that its results depend on, and in them
# what these do not depend on.
_OF_RESULTS = ("MODEL.WEIGHTS", "INPUT", "DATASETS", "TEST")
_NOT_OF_RESULTS = ("TEST.EVAL_PERIOD",)
_SHOWN = 3

Changes = Mapping[str, tuple[Any, Any]]


def finished(run: Run) -> bool:
    """Whether the folder holds the final results under the settings of the run.

    Raises:
        ZssError: the folder holds a run under other settings, finished or not.
    """
    cfg, before = run.config(), read_config(run.folder)
    if changes := different_settings(run.folder, before, cfg) if before else {}:
        raise ZssError(
            f"{run.folder} holds a run of another configuration, {described(changes)}; give "
            "another --output or rename it"
        )
    path = run.folder / "results.json"
    if not path.is_file():
        return False
    provenance = read_results(path)[PROVENANCE]
    if before:
        # An evaluation under other settings that was broken off has replaced config.yaml only.
        text = (run.folder / "config.yaml").read_bytes()
        if provenance["config_sha256"] != hashlib.sha256(text).hexdigest():
            return False
    elif provenance["config_sha256"] != config_hash(cfg):
        raise ZssError(
            f"{run.folder} holds a run of another configuration; give another --output or rename it"
        )
    return provenance["iteration"] in (None, cfg.SOLVER.MAX_ITER)


def different_settings(folder: Path, before: Mapping[str, Any], cfg: CfgNode) -> Changes:
    """The keys that make the results of a run others: {key: (value before, value now)}.

    Args:
        folder: of the run before.
        before: its config.
    """
    changes = resume_changes(before, cfg, default_config())
    free = {key: pair for key, pair in changes.free.items() if _matters(key)}
    if _same_files(folder, *free.get("DATASETS.CUSTOM", ((), ()))):
        free.pop("DATASETS.CUSTOM", None)
    for key in without_effect(cfg, free):
        del free[key]
    return {**changes.fixed, **changes.adjustable, **free}


def described(changes: Changes) -> str:
    """The first of them in words."""
    words = [
        f"{key} {shown(old)} there and {shown(new)} here" for key, (old, new) in changes.items()
    ]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def below(key: str, nodes: Iterable[str]) -> bool:
    """Whether a dotted key is one of the nodes or stands in one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes if node)


def _matters(key: str) -> bool:
    return below(key, _OF_RESULTS) and not below(key, _NOT_OF_RESULTS)


def _same_files(folder: Path, before: Any, now: Any) -> bool:
    """Whether two values of DATASETS.CUSTOM name the same files."""
    files = [found_from(folder, Path(str(name))).resolve() for name in before]
    return files == [Path(str(name)).resolve() for name in now]
