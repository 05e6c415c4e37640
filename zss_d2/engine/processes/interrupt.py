"""SIGTERM (a scheduler wants the machine) and SIGINT (Ctrl-C): stop, but lose nothing.

During training and evaluation the first signal only asks for a stop, which comes behind the
iteration or the image, and the trainer saves a checkpoint. At any other time it ends the process at
once, and so does a second signal at any time. The exit status is 128 + the signal's number, as
shells have it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from torch.multiprocessing import ProcessExitedException

from zss_d2.utils.signals import SAME_SIGNAL_S, STOPPING, handled_by

EXIT_STATUSES = tuple(128 + signum for signum in STOPPING)


class Interrupted(SystemExit):
    """A signal ended the run. Like KeyboardInterrupt it is no ``Exception``.

    Args:
        saved: a checkpoint is written, and all processes know it.
    """

    def __init__(self, signum: int, saved: bool = False):
        super().__init__(128 + signum)
        self.signum = signum
        self.saved = saved


class _Stop:
    """What this process knows of signals that it has got."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.at = 0.0
        self.deferred = False
        self.children: Callable[[], Sequence[int]] | None = None


_stop = _Stop()


@contextmanager
def listening() -> Iterator[None]:
    """Let this process handle signals as the module says; only a main thread can."""
    _stop.signum, _stop.deferred = None, False
    with handled_by(_handle):
        yield


@contextmanager
def handing_on(children: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Inside, this process waits for others, who save; signals go on to them.

    Args:
        children: tells their process ids.
    """
    _stop.children = children
    try:
        yield
    finally:
        _stop.children = None


def end_with_parent() -> None:
    """Let this process get SIGTERM once the process that started it has ended."""
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def requested() -> int | None:
    """The signal that asks for a stop; None if there was none."""
    return _stop.signum


def stop_if_requested() -> None:
    """Raise `Interrupted` if a signal has come."""
    if _stop.signum is not None:
        raise Interrupted(_stop.signum)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal waits until somebody asks for it.

    An exception that a handler raises may meet the interpreter in a callback, where it is lost.
    """
    before, _stop.deferred = _stop.deferred, True
    try:
        yield
    finally:
        _stop.deferred = before


def signal_of(error: BaseException) -> int | None:
    """The signal that an exception, in this process or a child, is due to; None if to none.

    Once a signal has come, processes may end in many ways.
    """
    if isinstance(error, Interrupted):
        return error.signum
    if isinstance(error, ProcessExitedException) and error.exit_code in EXIT_STATUSES:
        return error.exit_code - 128
    return requested() if isinstance(error, Exception) else None


def _handle(signum: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    children = _stop.children() if _stop.children else ()
    if _stop.signum is None:
        _stop.signum, _stop.at = signum, now
        _send(signum, children)
        if not _stop.deferred and not children:
            raise Interrupted(signum)
    elif now - _stop.at > SAME_SIGNAL_S:
        _send(signal.SIGKILL, children)
        os._exit(128 + signum)


def _send(signum: int, processes: Sequence[int]) -> None:
    for process in processes:
        try:
            os.kill(process, signum)
        except ProcessLookupError:
            continue
