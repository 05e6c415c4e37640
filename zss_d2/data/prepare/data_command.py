"""How the command lines that prepare or check data end."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec

from zss_d2.errors import command
from zss_d2.utils.signals import handled_by, name_of

P = ParamSpec("P")


class _Stopped(BaseException):
    """A signal asks for the end. Like KeyboardInterrupt it is no ``Exception``."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


def data_command(function: Callable[P, int]) -> Callable[P, int]:
    """`zss_d2.errors.command` that also ends with one line where a signal stops it.

    The status is then that of shells: 130 for SIGINT (Ctrl-C), 143 for SIGTERM. Worker processes
    finish the few items that they have; a second signal waits for nothing.
    """
    shielded = command(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            with _listening():
                return shielded(*args, **kwargs)
        except _Stopped as stop:
            print(
                f"error: stopped by {name_of(stop.signum)}; run the same command again "
                "to go on, finished files are kept",
                file=sys.stderr,
            )
            return 128 + stop.signum

    return run


@contextmanager
def _listening() -> Iterator[None]:
    """Turn signals into `_Stopped` inside; only a main thread can."""
    owner, stopping = os.getpid(), False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        # A worker that was forked a moment ago has this handler too.
        if stopping or os.getpid() != owner:
            os._exit(128 + signum)
        stopping = True
        raise _Stopped(signum)

    with handled_by(handle):
        yield
