"""How a run ends that does not end well: in one line, with a remedy."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from zss_d2.engine.last_checkpoint import POINTER, how_to_go_on
from zss_d2.engine.processes import interrupt
from zss_d2.errors import ZssError, user_message
from zss_d2.utils.signals import name_of
from zss_d2.utils.writing import write_error

# What libraries say where no exception of its own tells it -> what to tell the user; {go_on} stands
# for what they can do with what the run has left.
_KNOWN = (
    (
        r"bus error|insufficient shared memory",
        "there is too little shared memory for data loader workers; set DATALOADER.NUM_WORKERS 0, "
        "or give the container more (docker run --shm-size 8g)",
    ),
    (
        r"DataLoader worker .* (exited unexpectedly|is killed by signal)",
        "a data loader worker has ended, perhaps for lack of memory; lower DATALOADER.NUM_WORKERS "
        "and {go_on}",
    ),
    (
        r"EADDRINUSE|[Aa]ddress already in use",
        "the port of --dist-url is in use, probably by another run; give another port, or "
        "--dist-url auto on a single machine",
    ),
    (
        r"Timed out|[Tt]imeout at NCCL|Watchdog caught collective|wait timeout",
        "a process waited for the others longer than --timeout allows; log.txt* of the one that "
        "was late tells more; {go_on}",
    ),
    (
        r"[Cc]onnection (closed|reset|refused)|Broken pipe|NCCL communicator was aborted|"
        r"ncclRemoteError|remote process exited",
        "contact with another process of the run was lost, which has probably ended; {go_on}",
    ),
)
# What can only have met somebody who was writing, and what may have met anybody.
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_ANY = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EIO)


def as_user_error(error: BaseException, folder: Path) -> ZssError | None:
    """The error of a run in one line; None for what is a fault of this project.

    Args:
        folder: ``OUTPUT_DIR``.
    """
    if isinstance(error, ZssError):
        return error
    if isinstance(error, OSError) and error.errno in _WRITING:
        return write_error(error, Path(error.filename or folder))
    if isinstance(error, OSError) and error.errno in _ANY:
        return ZssError(f"{user_message(error)}; check the file, its permissions and the disk")
    if isinstance(error, torch.OutOfMemoryError):
        return ZssError(
            "the GPU has too little memory; raise SOLVER.ACCUMULATE, lower SOLVER.IMS_PER_BATCH or "
            "INPUT.CROP.SIZE, set MODEL.AUTOCAST bfloat16, or for tests TEST.BATCH 1"
        )
    remedy = known_remedy(str(error), folder)
    return ZssError(remedy) if remedy and isinstance(error, (RuntimeError, OSError)) else None


def known_remedy(text: str, folder: Path) -> str:
    """What to tell a user about the text of an exception; empty if it is not known."""
    found = next((remedy for pattern, remedy in _KNOWN if re.search(pattern, text)), "")
    return found.format(go_on=how_to_go_on(folder))


def last_words(error: BaseException, folder: Path) -> tuple[str, int]:
    """What to print about the end of a run, and its exit status; nothing for a fault of ours."""
    signum = interrupt.signal_of(error)
    # That the last checkpoint could not be written must not go under.
    unsaved = "cannot be written" in str(error)
    if signum is not None and not unsaved:
        return _stopped(signum, folder), 128 + signum
    # A worker process or loader hands its ZssError on as text inside another exception.
    if isinstance(error, ZssError) or f"{ZssError.__name__}: " in str(error):
        return f"error: {user_message(error)}", 2
    # Versions of torch have two names for it.
    process = getattr(error, "error_pid", None) or getattr(error, "pid", None)
    if isinstance(error, ProcessExitedException):
        cause = error.signal_name or f"exit status {error.exit_code}"
        return (
            f"error: rank {error.error_index} (process {process}) was ended by {cause}, "
            f"by hand, by a scheduler or for lack of memory; {how_to_go_on(folder)}",
            1,
        )
    if isinstance(error, ProcessRaisedException):
        text = str(error).strip()
        known = known_remedy(text, folder)
        if not known:
            print(text, file=sys.stderr)
        reason = known or text.splitlines()[-1]
        return f"error: rank {error.error_index} (process {process}): {reason}", 1
    if (known := as_user_error(error, folder)) is not None:
        return f"error: {known}", 2
    return "", 1


def _stopped(signum: int, folder: Path) -> str:
    name = name_of(signum)
    try:
        last = (folder / POINTER).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return f"stopped by {name}; {folder} holds no checkpoint"
    return f"stopped by {name}; the last checkpoint is {folder / last}, go on with --resume"
