"""The checkpoints of a folder, and which it is resumed from: what ``last_checkpoint`` names."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

POINTER = "last_checkpoint"
FINAL = "model_final.pth"
BEST = "model_best.pth"
_NUMBERED = re.compile(r"model_(\d+)\.pth")
# More than any file name; what is longer is no pointer.
_LONGEST = 1024


def find_last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names, a plain file name in the folder.

    A run that was killed between its first checkpoint and the pointer to it has none yet: then it
    is the newest checkpoint, which is said. None: there is neither.

    Raises:
        ZssError: the pointer names no file of the folder; says which checkpoint is the newest.
    """
    pointer = folder / POINTER
    if not pointer.exists() and not pointer.is_symlink():
        newest = newest_checkpoint(folder)
        if newest is not None:
            logger.warning("%s is missing; the newest checkpoint is %s", pointer, newest.name)
        return newest
    try:
        with pointer.open("rb") as file:
            name = file.read(_LONGEST).decode("utf-8", errors="replace").strip()
    except OSError as error:
        raise _wrong(folder, f"cannot be read ({error.strerror})") from None
    if not name:
        raise _wrong(folder, "is empty")
    shown = repr(name if len(name) <= 60 else f"{name[:57]}...")
    if not name.isprintable() or name in (".", "..") or set(name) & {"/", "\\"}:
        raise _wrong(folder, f"holds {shown}, not the name of a file in its folder")
    path = folder / name
    if not os.path.isfile(path):  # False for impossible names too
        raise _wrong(folder, f"names {shown}, which is not there")
    return path


def numbered_checkpoints(folder: Path) -> dict[int, Path]:
    """{iteration: ``model_<iteration>.pth``}."""
    return {
        int(match[1]): path
        for path in folder.glob("model_*.pth")
        if (match := _NUMBERED.fullmatch(path.name)) and path.is_file()
    }


def checkpoints_of_runs(folder: Path) -> list[Path]:
    """What trainings write under names of their own: all checkpoints and the pointer."""
    named = [folder / name for name in (FINAL, BEST, POINTER)]
    there = [path for path in named if path.is_file() or path.is_symlink()]
    return [*numbered_checkpoints(folder).values(), *there]


def how_to_go_on(folder: Path) -> str:
    """What to do about a run that has failed, for a message."""
    if checkpoints_of_runs(folder):
        return "go on with --resume"
    return "start the run again, it has no checkpoint yet"


def newest_checkpoint(folder: Path) -> Path | None:
    """``model_final.pth`` or the ``model_<iteration>.pth`` of the last iteration; None: neither."""
    numbered = numbered_checkpoints(folder)
    last = max(numbered, default=-1)
    final = folder / FINAL
    if final.is_file() and _stored_iteration(final) >= last:
        return final
    return numbered.get(last)


def newest_readable(folder: Path) -> Path | None:
    """The checkpoint of the last iteration that is no damaged file; None: there is none."""
    known = [*numbered_checkpoints(folder).values(), folder / FINAL]
    stored = {path: _stored_iteration(path) for path in known if path.is_file()}
    best = max(stored, key=stored.__getitem__, default=None)
    return best if best is not None and stored[best] >= 0 else None


def command_to_choose(checkpoint: Path) -> str:
    """The shell command that makes a run go on from one of its checkpoints."""
    return f"echo {checkpoint.name} > {shlex.quote(str(checkpoint.parent / POINTER))}"


def iteration_of(checkpoint: Mapping[str, Any]) -> int | None:
    """The iteration that a checkpoint was saved after, counted from 0; None: it does not say."""
    trainer = checkpoint.get("trainer")
    inside = trainer.get("iteration") if isinstance(trainer, Mapping) else None
    iteration = checkpoint.get("iteration", inside)
    return iteration if isinstance(iteration, int) else None


def peek(path: Path) -> dict[str, Any]:
    """A checkpoint whose weights are mapped, not read.

    Empty where it cannot be read, which loading it then explains.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch lets errors of many kinds through
        return {}
    return content if isinstance(content, dict) else {}


def _stored_iteration(path: Path) -> int:
    """-1 where the file cannot be read."""
    iteration = iteration_of(peek(path))
    return -1 if iteration is None else iteration


def _wrong(folder: Path, problem: str) -> ZssError:
    newest = newest_checkpoint(folder)
    pointer = folder / POINTER
    if newest is None:
        return ZssError(
            f"{pointer} {problem}, nor is any other checkpoint; put one back, or start a run in "
            "another OUTPUT_DIR"
        )
    return ZssError(
        f"{pointer} {problem}; the newest checkpoint there is {newest.name}, to go on from it: "
        f"{command_to_choose(newest)}"
    )
