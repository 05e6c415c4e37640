"""Writing files in one step: whatever happens, the old file is there or the new one, never half.

A file is written under a temporary name beside its own, ``.NAME.XXXXXXXX.tmp``, and then moved. As
long as it is written it is locked (``flock``), so that `remove_leftovers` tells what a killed
process has left from what another process, or container, is writing.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zss_d2.errors import ZssError

try:
    import fcntl
except ImportError:  # not a POSIX system: there are no such locks, and old leftovers stay longer
    fcntl = None

logger = logging.getLogger(__name__)

# The digits of a process id are what earlier versions put there.
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8}|[0-9]+)\.tmp", re.DOTALL)
# Bytes of the file's name that go into its temporary one: file systems allow 255, some fewer.
_NAME_BYTES = 100
# A file is created a moment before it is locked, and a link never is.
_GRACE_S = 60
# Without locks: longer than anybody writes one file.
_GRACE_WITHOUT_LOCKS_S = 24 * 60 * 60
# More than what a writer may have in a buffer when the disk is full.
_PROBE_BYTES = 1 << 20
# Where Pillow puts what `read_stamp` reads: a text chunk of that keyword.
_STAMP = "zss_d2"


class WriteError(ZssError):
    """A file or a folder cannot be written: the disk, a permission or its name forbids it."""


def write_atomic(path: Path, write: Callable[[Path], object], *, flush: bool = True) -> None:
    """Let ``write`` fill a file beside ``path``, then move it there: never half a file.

    The folder is created. What ``write`` is given exists, empty, and ends in ``.tmp``, so no
    listing takes it for data.

    Args:
        flush: wait until the disk has the content, so that the file survives a loss of power as
            well. Many small files that can be made again do without, which is ten times as fast.

    Raises:
        WriteError: the disk is full, or anything else is in the way; what was there stays.
    """
    make_folder(path.parent)
    with _reporting(path):
        temporary, descriptor = _create(path)
        try:
            _lock(descriptor)
            try:
                write(temporary)
            except Exception as error:
                if not isinstance(error, (OSError, ZssError)):
                    _probe(descriptor)
                raise
            if flush:
                os.fsync(descriptor)
            os.replace(temporary, path)
        finally:
            os.close(descriptor)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def link_atomic(path: Path, target: Path) -> None:
    """Make ``path`` a symbolic link to ``target``, in one step; raises WriteError."""
    make_folder(path.parent)
    with _reporting(path):
        temporary = _temporary_name(path)
        try:
            os.symlink(target, temporary)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_mask(path: Path, labels: np.ndarray, stamp: str = "") -> None:
    """Write (H, W) uint8 or uint16 labels as a grey PNG, atomically.

    ``stamp`` says in a text chunk what the mask was made from, see `read_stamp`.
    """
    image = Image.fromarray(labels)
    text = PngInfo()
    if stamp:
        text.add_text(_STAMP, stamp)
    write_atomic(path, lambda file: image.save(file, format="PNG", pnginfo=text), flush=False)


def read_stamp(image: Image.Image) -> str:
    """Return what `write_mask` has noted in an image that was opened, or an empty string."""
    return str(image.info.get(_STAMP, ""))


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; raises WriteError."""
    with _reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path, *, recursive: bool = False) -> int:
    """Remove the temporary files in ``folder`` that nobody writes any more; returns how many.

    That is, those a minute old whose lock is free; where there are no locks, those a day old. Links
    are not followed, and what cannot be read or removed is left.
    """
    count = sum(_remove_if_left(path) for path in _temporary_files(folder, recursive))
    if count:
        logger.info(
            "%s: removed %d half-written files of processes that were killed", folder, count
        )
    return count


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that is being written, or was left by a killed process."""
    return _TEMPORARY.fullmatch(name) is not None


def _temporary_files(folder: Path, recursive: bool) -> Iterator[str]:
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                listed = list(entries)
        except OSError:
            continue
        for entry in listed:
            if recursive and _is_folder(entry):
                waiting.append(entry.path)
            elif is_temporary(entry.name):
                yield entry.path


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _remove_if_left(path: str) -> bool:
    try:
        status = os.lstat(path)
        if time.time() - status.st_mtime < _GRACE_S:
            return False
        if stat.S_ISREG(status.st_mode):
            return _remove_unless_locked(path)
        if stat.S_ISLNK(status.st_mode):
            os.unlink(path)
            return True
    except OSError:
        pass
    return False


def _remove_unless_locked(path: str) -> bool:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        age = time.time() - os.fstat(descriptor).st_mtime
        if age < (_GRACE_S if _lock(descriptor) else _GRACE_WITHOUT_LOCKS_S):
            return False
        os.unlink(path)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file; returns False where there are no locks, raises BlockingIOError if it is taken.

    The lock ends with the descriptor, hence with the process.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _temporary_name(path: Path) -> Path:
    kept = os.fsencode(path.name)[:_NAME_BYTES].decode("utf-8", errors="ignore")
    return path.with_name(f".{kept}.{secrets.token_hex(4)}.tmp")


def _create(path: Path) -> tuple[Path, int]:
    """Create an empty temporary file: its path, and a descriptor to be closed.

    Not by `tempfile.mkstemp`, which hides files from the group: that of a finished one must be as
    readable as the umask and the folder say.
    """
    while True:
        temporary = _temporary_name(path)
        with suppress(FileExistsError):
            return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _probe(descriptor: int) -> None:
    """Raise OSError if nothing more can be written.

    Writers that are not Python (PyTorch's, safetensors') raise errors of their own, which do not
    tell a full disk from anything else.
    """
    os.lseek(descriptor, 0, os.SEEK_END)
    left = _PROBE_BYTES
    while left:
        left -= os.write(descriptor, bytes(left))


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into a WriteError; one about another file is passed on."""
    try:
        yield
    except OSError as error:
        about = error.filename
        if isinstance(about, (str, os.PathLike)) and not _concerns(Path(about), path):
            raise
        raise write_error(error, path) from error


def write_error(error: OSError, path: Path) -> WriteError:
    """What is in the way of writing ``path``, in one line."""
    return WriteError(f"{path}: cannot be written, {_reason(error, path)}")


def _concerns(about: Path, path: Path) -> bool:
    beside = about.parent == path.parent and is_temporary(about.name)
    return about == path or about in path.parents or beside


def _reason(error: OSError, path: Path) -> str:
    """Say in words what is in the way, and what to do."""
    elsewhere = "name another folder"
    stays = "; what was there stays as it was" if os.path.isfile(path) else ""
    match error.errno:
        case errno.ENOSPC:
            return f"the disk is full ({_free(path)} free); make room, or {elsewhere}{stays}"
        case errno.EDQUOT:
            return f"your quota of the disk is used up; make room, or {elsewhere}{stays}"
        case errno.EFBIG:
            return f"files may not become that large here; raise `ulimit -f`, or {elsewhere}{stays}"
        case errno.EROFS:
            return f"the file system is read-only; {elsewhere}, or mount it for writing"
        case errno.EACCES | errno.EPERM:
            return f"you have no permission; {elsewhere}, or have it given to you"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{_file_in_the_way(path)} is a file where a folder is needed; {elsewhere}"
        case errno.EISDIR:
            return f"a folder of that name is there; {elsewhere}"
        case errno.ENAMETOOLONG:
            return "the name is too long for the file system; choose a shorter one"
        case errno.ELOOP:
            return f"it lies behind a link that leads to itself; fix the link, or {elsewhere}"
    return f"{error.strerror or error}; check the disk, or {elsewhere}{stays}"


def _free(path: Path) -> str:
    for folder in path.parents:
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB"
    return "nothing known to be"


def _file_in_the_way(path: Path) -> Path:
    return next((p for p in (*reversed(path.parents), path) if p.exists() and not p.is_dir()), path)
