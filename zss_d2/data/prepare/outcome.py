"""What preparing or checking a split reports, and how the work is spread over processes."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import parent_process

from tqdm import tqdm

from zss_d2.data.files.images import apply_pixel_limit
from zss_d2.data.spec.benchmark import Split
from zss_d2.errors import ZssError
from zss_d2.utils.signals import STOPPING


@dataclass(frozen=True)
class Outcome:
    """What became of a split: a summary, one line per problem and note, and a table if asked."""

    summary: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    table: str = ""


def run_parallel(
    function: Callable, items: Sequence, workers: int, label: str, unit: str = "image"
) -> Iterator:
    """Yield function(item) in order, behind a progress bar.

    Not tqdm's ``process_map``: that has no way to begin a worker, so Ctrl-C would end the workers
    before the parent process, and a parent that is killed would leave them behind.

    Raises ZssError if a worker process is killed, or the environment has a wrong pixel limit, which
    would otherwise be the problem of every image.
    """
    apply_pixel_limit()
    progress = functools.partial(tqdm, total=len(items), desc=label, unit=unit)
    if workers <= 1 or len(items) <= 1:
        yield from progress(map(function, items))
        return
    with ProcessPoolExecutor(workers, initializer=_begin_worker) as pool:
        try:
            yield from progress(pool.map(function, items, chunksize=8))
        except BrokenProcessPool:
            raise ZssError(
                f"{label}: a worker process was killed, often for want of memory; run the same "
                "command again, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave it to the parent process to end: a terminal sends signals to all at once."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed cannot tell its workers.
    parent_process().join()
    os._exit(1)


def count_notes(split: Split, count: int, subject: str) -> list[str]:
    """Say that ``subject`` is of another size than the benchmark, which is no news if equal."""
    if split.expected_images in (None, count):
        return []
    return [
        f"{split.name}: {subject} {count} images, the benchmark has {split.expected_images}; "
        "scores cannot be compared with published ones"
    ]


def print_outcomes(outcomes: Iterable[Outcome]) -> int:
    """Print problems to the error stream and the rest to the output; returns the problem count."""
    failed = 0
    for outcome in outcomes:
        for problem in outcome.problems:
            print(f"error: {problem}", file=sys.stderr)
        for note in outcome.notes:
            print(f"note: {note}")
        if outcome.table:
            print(outcome.table)
        print(outcome.summary)
        failed += len(outcome.problems)
    return failed
