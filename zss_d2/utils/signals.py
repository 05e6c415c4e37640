"""Handling signals for a while: what preparation, training and sweeps have in common."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

# A scheduler wants the machine, or a person has pressed Ctrl-C.
STOPPING = (signal.SIGTERM, signal.SIGINT)
# A signal that comes twice within this time was sent once, to a group and to its members.
SAME_SIGNAL_S = 1.0


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], None], signals: Sequence[int] = STOPPING
) -> Iterator[None]:
    """Inside, ``handler`` gets the signals, if this is a main thread, which alone can."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {signum: signal.signal(signum, handler) for signum in signals}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)


def name_of(signum: int) -> str:
    """Such as SIGTERM."""
    return signal.Signals(signum).name
