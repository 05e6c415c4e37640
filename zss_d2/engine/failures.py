"""What goes wrong while a run is under way, in one line with a remedy."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import torch

from zss_d2.errors import ZssError

# What libraries say where no exception of its own tells it -> what to tell the user.
_KNOWN = (
    (
        r"bus error|insufficient shared memory",
        "there is too little shared memory for data loader workers; set DATALOADER.NUM_WORKERS 0, "
        "or give the container more (docker run --shm-size 8g)",
    ),
    (
        r"DataLoader worker .* (exited unexpectedly|is killed by signal)",
        "a data loader worker has ended, perhaps for lack of memory; lower DATALOADER.NUM_WORKERS "
        "and go on with --resume",
    ),
    (
        r"EADDRINUSE|[Aa]ddress already in use",
        "the port of --dist-url is in use, probably by another run; give another port, or "
        "--dist-url auto on a single machine",
    ),
    (
        r"Timed out|[Tt]imeout at NCCL|Watchdog caught collective|wait timeout",
        "a process waited for the others longer than --timeout allows; log.txt* of the one that "
        "was late tells more; go on with --resume",
    ),
    (
        r"[Cc]onnection (closed|reset|refused)|Broken pipe|NCCL communicator was aborted|"
        r"ncclRemoteError|remote process exited",
        "contact with another process of the run was lost, which has probably ended; go on with "
        "--resume",
    ),
)
_OF_DISKS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "EIO")
    if hasattr(errno, name)
}
# Of torch.save, which hides what the system has said.
_WRITER_FAILED = re.compile(r"PytorchStreamWriter failed|inline_container|basic_ios::clear")


def as_user_error(error: BaseException, folder: Path) -> ZssError | None:
    """The error of a run in one line; None for what is a fault of this project.

    Args:
        folder: ``OUTPUT_DIR``.
    """
    if isinstance(error, ZssError):
        return error
    if isinstance(error, OSError) and error.errno in _OF_DISKS:
        return ZssError(_of_disk(error.strerror or str(error), Path(error.filename or folder)))
    if isinstance(error, torch.OutOfMemoryError):
        return ZssError(
            "the GPU has too little memory; lower SOLVER.IMS_PER_BATCH or INPUT.CROP.SIZE, set "
            "MODEL.AUTOCAST bfloat16, or for tests TEST.SLIDE.BATCH 1"
        )
    text = str(error)
    if isinstance(error, RuntimeError) and _WRITER_FAILED.search(text):
        return ZssError(_of_disk("a checkpoint could not be written", folder))
    remedy = known_remedy(text)
    return ZssError(remedy) if remedy and isinstance(error, (RuntimeError, OSError)) else None


def known_remedy(text: str) -> str:
    """What to tell a user about the text of an exception; empty if it is not known."""
    return next((remedy for pattern, remedy in _KNOWN if re.search(pattern, text)), "")


def _of_disk(reason: str, path: Path) -> str:
    place = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**20
    return (
        f"{path}: {reason} ({free:.0f} MiB free there); make room or give another OUTPUT_DIR; "
        "earlier checkpoints are whole, go on with --resume"
    )
