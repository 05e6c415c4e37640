"""Settings of runs: which keys make two runs one, and which do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from zss_d2.analysis.run_folder import RunFolder
from zss_d2.config.defaults import default_config
from zss_d2.config.rules import below, resume_changes, without_effect
from zss_d2.config.values import flatten, shown

# Of the keys that may change while a run goes on, those that its results do not depend on. Others
# (how it is tested, what it starts from) make another run in a table.
HARMLESS = (
    "VERSION",
    "OUTPUT_DIR",
    "CUDNN_BENCHMARK",
    "MODEL.DEVICE",
    "MODEL.COMPILE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_MINUTES",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.CHECKPOINT_BEST",
    "TEST.EVAL_PERIOD",
    "TEST.SHOW_IMAGES",
    "TEST.BATCH",
    "TEST.CUDA_GRAPHS",
    # What else is measured; no other number depends on it.
    "TEST.FRAGMENTATION",
)
_SHOWN = 3

Changes = Mapping[str, tuple[Any, Any]]


def settings_hash(cfg: CfgNode, without: Collection[str] = (), **instead: Any) -> str:
    """SHA-256 of all settings that results depend on.

    Args:
        without: keys that are left out.
        instead: values of the lists ``DATASETS.TRAIN`` and ``DATASETS.TEST``, as TRAIN and TEST.
    """
    settings = flatten(cfg) | {f"DATASETS.{key}": value for key, value in instead.items()}
    settings["DATASETS.CUSTOM"] = [str(Path(name).resolve()) for name in cfg.DATASETS.CUSTOM]
    out = {*without, *without_effect(cfg, settings)}
    kept = {
        key: value for key, value in settings.items() if key not in out and not below(key, HARMLESS)
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def different_settings(earlier: RunFolder, cfg: CfgNode) -> Changes:
    """The keys that make the results of a run others: {key: (value before, value now)}.

    Args:
        earlier: the run before, whose folder has a config.yaml.
    """
    changes = resume_changes(earlier.settings, cfg, default_config())
    free = {key: pair for key, pair in changes.free.items() if not below(key, HARMLESS)}
    if _same_files(earlier, *free.get("DATASETS.CUSTOM", ((), ()))):
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


def _same_files(earlier: RunFolder, before: Any, now: Any) -> bool:
    """Whether two values of DATASETS.CUSTOM name the same files."""
    files = [earlier.find(Path(str(name))).resolve() for name in before]
    return files == [Path(str(name)).resolve() for name in now]
