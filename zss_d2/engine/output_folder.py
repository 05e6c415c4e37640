"""OUTPUT_DIR belongs to one run at a time, and a finished run is not written over."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zss_d2.errors import ZssError
from zss_d2.utils.writing import make_folder, remove_leftovers

try:
    import fcntl
except ImportError:  # not a POSIX system: there the lock file only informs
    fcntl = None

LOCK = ".lock"
# Processes of a run whose launcher was killed still finish an iteration and save.
PATIENCE_S = 60.0


@contextmanager
def claim(folder: Path, option: str = "OUTPUT_DIR") -> Iterator[None]:
    """Make the folder this process's own, and clear away what killed runs have left half written.

    The lock is the system's, on the file ``.lock``, which says who has it: it ends with the process
    that holds it, however that ends.

    Args:
        option: that names the folder.

    Raises:
        ZssError: another run is using it, or nothing can be written there.
    """
    make_folder(folder)
    path = folder / LOCK
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ZssError(
            f"{option} {folder} cannot be written to ({error.strerror}); give another {option}"
        ) from error
    with file:
        _lock(file, path, option)
        file.truncate(0)
        owner = {"host": socket.gethostname(), "process": os.getpid(), "start": time.strftime("%c")}
        file.write(json.dumps(owner) + "\n")
        file.flush()
        remove_leftovers(folder, recursive=True)
        try:
            yield
        finally:
            # The file stays: taken away, two others could lock two files of its name.
            file.truncate(0)


def _lock(file: IO[str], path: Path, option: str) -> None:
    if fcntl is None:
        _warn_without_locks(path)
        return
    start, said = time.monotonic(), False
    while True:
        try:
            # Of the process, not of the open file, so no loader worker that was forked inherits it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - start
            if waited > PATIENCE_S:
                in_use = _in_use(path, option)
                raise ZssError(f"{in_use}; wait, or give another {option}") from None
            if waited > 1 and not said:
                in_use = _in_use(path, option)
                print(f"{in_use}; waiting for {PATIENCE_S:.0f} s", file=sys.stderr)
                said = True
            time.sleep(0.2)
        except OSError:  # a file system without locks
            _warn_without_locks(path)
            return


def _warn_without_locks(path: Path) -> None:
    print(
        f"warning: there are no locks in {path.parent}; see to it yourself that one run uses it",
        file=sys.stderr,
    )


def _in_use(path: Path, option: str) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {owner['process']} on {owner['host']}, since {owner['start']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"{option} {path.parent} is in use by {who}"
