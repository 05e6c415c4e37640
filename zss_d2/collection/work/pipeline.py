"""Reading, labelling and writing at once, in bounded memory.

Threads decode the images of the next batches and encode the files of earlier ones while the network
has the present one. Pixels that are under way are limited, from the moment an image is to be read
until its files are written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from zss_d2.collection.inputs import Image
from zss_d2.collection.work.plan import BATCH_PX
from zss_d2.engine.processes import interrupt
from zss_d2.errors import ZssError
from zss_d2.utils.writing import WriteError


class Fatal(ZssError):
    """Not the fault of an image: what ends the run."""


PIXELS_UNDER_WAY = 2 * BATCH_PX


class Member(NamedTuple):
    """An image of a batch, and how it is to be read; of one not ``wanted`` there are results."""

    image: Image
    wanted: bool
    pixels: int = 0
    kind: Any = None


class Work(Protocol):
    """What is done with images. All but ``label`` run in threads; errors are `ZssError`."""

    def read(self, image: Image, kind: Any) -> Any:
        """Decode an image of a kind."""

    def label(self, images: Sequence[Any]) -> Iterable[Any]:
        """Results of decoded images, in order, one batch through the network."""

    def write(self, image: Image, decoded: Any, result: Any) -> None:
        """Write the files of an image, and note that they are there."""

    def fail(self, image: Image, error: Exception) -> None:
        """Note that an image has no result."""


def run(batches: Iterable[Sequence[Member]], work: Work, threads: int) -> None:
    """Do the work on batches, whose members go through the network together.

    Args:
        batches: made in a thread, a few ahead.
        threads: for reading, and as many for writing.

    Raises:
        Interrupted: a signal has come; all that was labelled before is written.
        WriteError, Fatal: no other image would fare better.
    """
    stop = threading.Event()
    budget = _Budget(PIXELS_UNDER_WAY, stop)
    ahead: queue.Queue = queue.Queue(maxsize=2)
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        feeder = threading.Thread(
            target=_feed, args=(batches, work, readers, budget, ahead, stop), daemon=True
        )
        feeder.start()
        written: list[Future] = []
        try:
            with interrupt.deferred():
                while (item := _next(ahead)) is not None:
                    members, decoding = item
                    _label(members, decoding, work, writers, written, budget)
                    written = _still_running(written)
        finally:
            stop.set()
            readers.shutdown(wait=False, cancel_futures=True)
            with suppress(queue.Empty):
                while True:
                    ahead.get_nowait()
            feeder.join()
        for future in written:
            future.result()


class _Budget:
    """Pixels that may be under way; one batch may always be."""

    def __init__(self, pixels: int, stop: threading.Event):
        self._pixels = pixels
        self._used = 0
        self._changed = threading.Condition()
        self._stop = stop

    def take(self, pixels: int) -> None:
        with self._changed:
            while self._used and self._used + pixels > self._pixels and not self._stop.is_set():
                self._changed.wait(0.1)
            self._used += pixels

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()


def _feed(
    batches: Iterable[Sequence[Member]],
    work: Work,
    readers: ThreadPoolExecutor,
    budget: _Budget,
    ahead: queue.Queue,
    stop: threading.Event,
) -> None:
    """Let the images of batches be read, as far ahead as the budget allows."""
    try:
        for members in batches:
            budget.take(sum(member.pixels for member in members))
            if stop.is_set():
                return
            decoding = [readers.submit(work.read, member.image, member.kind) for member in members]
            _put(ahead, (members, decoding), stop)
        _put(ahead, None, stop)
    except BaseException as error:  # for the thread that can end the run
        _put(ahead, error, stop)


def _put(ahead: queue.Queue, item: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(queue.Full):
            ahead.put(item, timeout=0.1)
            return


def _next(ahead: queue.Queue) -> Any:
    while True:
        interrupt.stop_if_requested()
        with suppress(queue.Empty):
            item = ahead.get(timeout=0.1)
            if isinstance(item, BaseException):
                raise item
            return item


def _label(
    members: Sequence[Member],
    decoding: Sequence[Future],
    work: Work,
    writers: ThreadPoolExecutor,
    written: list[Future],
    budget: _Budget,
) -> None:
    decoded = []
    for member, future in zip(members, decoding, strict=True):
        try:
            decoded.append((member, future.result()))
        except ZssError as error:
            _fail(member, error, work, budget)
    for member, content, result in _results(decoded, work):
        if isinstance(result, ZssError):
            _fail(member, result, work, budget)
        elif member.wanted:
            written.append(writers.submit(_write, member, content, result, work, budget))
        else:
            budget.give_back(member.pixels)


def _results(
    decoded: Sequence[tuple[Member, Any]], work: Work
) -> Iterator[tuple[Member, Any, Any]]:
    """Members with what was decoded and labelled, or with the error that kept it from that."""
    results: list[Any] = []
    try:
        for result in work.label([content for _, content in decoded]):
            member, content = decoded[len(results)]
            results.append(member)
            yield member, content, result
    except ZssError as error:
        if isinstance(error, (WriteError, Fatal)):
            raise
        left = decoded[len(results) :]
        if len(decoded) == 1:
            yield *decoded[0], error
            return
        # One of them is at fault; the others are labelled by themselves.
        for one in left:
            yield from _results([one], work)


def _write(member: Member, content: Any, result: Any, work: Work, budget: _Budget) -> None:
    try:
        work.write(member.image, content, result)
    finally:
        budget.give_back(member.pixels)


def _fail(member: Member, error: ZssError, work: Work, budget: _Budget) -> None:
    if member.wanted:
        work.fail(member.image, error)
    budget.give_back(member.pixels)


def _still_running(written: list[Future]) -> list[Future]:
    """Those that are not finished; raises what one of the others has raised."""
    for future in written:
        if future.done():
            future.result()
    return [future for future in written if not future.done()]
