"""What preparing or checking a split reports, and how the work is spread over processes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from zss_d2.data.benchmark import Split


@dataclass(frozen=True)
class Outcome:
    """What became of a split: a summary, one line per problem and note, and a table if asked."""

    summary: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    table: str = ""


def run_parallel(function: Callable, items: Sequence, workers: int, label: str) -> Iterator:
    """Yield function(item) in order, behind a progress bar."""
    progress = functools.partial(tqdm, total=len(items), desc=label, unit="image")
    if workers <= 1 or len(items) <= 1:
        yield from progress(map(function, items))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from progress(pool.map(function, items, chunksize=8))


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
