"""What a resumed run must agree on with the run it continues, and what it may change."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from zss_d2.config.defaults import default_config
from zss_d2.config.rules import ResumeChanges, resume_changes
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.last_checkpoint import FINAL, checkpoints_of_runs, peek
from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

# What they come to depends on the device, and is compared in their place.
_PRECISION_KEYS = ("MODEL.AUTOCAST", "MODEL.TF32", "FLOAT32_PRECISION")


def require_folder_for_training(
    cfg: CfgNode, *, resume: bool, overwrite: bool, allow_changes: bool
) -> None:
    """Raise `ZssError` if a training would spoil what ``OUTPUT_DIR`` holds.

    That is: without ``--resume`` if it holds checkpoints; with it if they are of another run.

    Args:
        overwrite: the checkpoints and metrics there are no longer wanted, and are removed.
        allow_changes: other settings are wanted, at the price of exactness.
    """
    checkpointer = ZeroShotCheckpointer(nn.Identity(), cfg.OUTPUT_DIR)
    if resume and overwrite:
        raise ZssError("--resume goes on with a run and --overwrite replaces it; give one of them")
    if resume:
        if checkpointer.has_checkpoint():
            path = checkpointer.get_checkpoint_file()
            state = stored_training_state(Path(path))
            if "settings" in state:
                check_settings(cfg, state, path, allow_changes)
        return
    folder = Path(cfg.OUTPUT_DIR)
    written = checkpoints_of_runs(folder)
    if not written:
        return
    if not overwrite:
        what = "a finished run" if (folder / FINAL).exists() else "checkpoints of a run"
        raise ZssError(
            f"OUTPUT_DIR {folder} holds {what}; give another OUTPUT_DIR, --resume to go on with "
            "that run, or --overwrite to replace it"
        )
    for path in [*written, folder / "metrics.json"]:
        path.unlink(missing_ok=True)


def stored_training_state(path: Path) -> dict[str, Any]:
    """What a checkpoint knows of its run, of which `ZeroShotTrainer.state_dict` tells."""
    state = peek(path).get("trainer")
    return state if isinstance(state, dict) else {}


def check_settings(
    cfg: CfgNode, state: Mapping[str, Any], checkpoint: str, allow_changes: bool
) -> ResumeChanges:
    """Compare the settings of a run with those it is to go on with.

    Raises:
        ZssError: one changes that makes it another run, or the run ends before the checkpoint.
    """
    changes = resume_changes(state["settings"], cfg, default_config())
    if changes.fixed and not allow_changes:
        raise ZssError(
            f"{checkpoint} belongs to a run with other settings: {_listed(changes.fixed)}; give "
            "them as they were, another OUTPUT_DIR, or --allow-changes"
        )
    done = state["iteration"] + 1
    if done > cfg.SOLVER.MAX_ITER:
        raise ZssError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, but {checkpoint} has {done} iterations "
            "behind it; raise it"
        )
    return changes


def log_changes(changes: ResumeChanges) -> None:
    """Say what holds from here on."""
    if changes.fixed:
        logger.warning(
            "This is no longer the run that was started: %s; it does not continue exactly",
            _listed(changes.fixed),
        )
    if changes.adjustable:
        logger.warning("From here on: %s", _listed(changes.adjustable))


def without_precision(changes: ResumeChanges) -> ResumeChanges:
    """Without keys that another value of may mean the same; `precision_of` tells."""
    kept = {k: v for k, v in changes.adjustable.items() if k not in _PRECISION_KEYS}
    return replace(changes, adjustable=kept)


def precision_of(state: Mapping[str, Any]) -> str:
    """What a run had its networks compute in until a checkpoint, as `Precision.in_words` says it.

    Args:
        state: of the trainer, with ``settings``. Earlier versions did not say it and left TF32 off.
    """
    settings = state["settings"]
    earlier = settings.get("MODEL.AUTOCAST") or "float32"
    if settings.get("SOLVER.AMP.ENABLED"):
        earlier = "float16 by AMP"
    return state.get("precision", earlier)


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    shown = [f"{key} was {old!r} and is {new!r}" for key, (old, new) in changes.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def rewind_metrics(path: Path, iteration: int) -> None:
    """Cut off the lines of ``metrics.json`` from ``iteration`` on, which will be written again.

    In place, as a writer may have opened the file. So do those behind a line that is not whole.
    """
    if not path.is_file():
        return
    with path.open("rb+") as file:
        kept = 0
        for line in file:
            content = _parsed(line)
            if content is None or content["iteration"] >= iteration:
                break
            kept += len(line)
        file.truncate(kept)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of ``metrics.json`` that are whole; none if there is no such file."""
    if not path.is_file():
        return []
    lines = (_parsed(line) for line in path.read_bytes().splitlines())
    return [line for line in lines if line is not None]


def _parsed(line: bytes) -> dict[str, float] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "iteration" in content else None
