"""How far a run is: a bar on a terminal, lines now and then in a log."""

from __future__ import annotations

import sys
import threading
import time

from tqdm import tqdm

from zss_d2.utils.text import one_line

# Between two lines in a log.
LOG_SECONDS = 30.0


class Progress:
    """Counts images; ``images/s`` and the time left are those of this run.

    Args:
        total: images of this process.
        left: of them, not done by earlier runs.
        processes: of which each shows, if at all, its own images.
        shown: False: count only.
    """

    def __init__(self, total: int, left: int, processes: int = 1, shown: bool = True):
        before = total - left
        self.done = self.failed = 0
        self._notes: set[str] = set()
        self._lock = threading.Lock()
        self._shown = shown
        terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=before,
            unit=" images",
            desc=f"1 of {processes} processes" if processes > 1 else None,
            disable=not terminal,
            dynamic_ncols=True,
        )
        self._total, self._before = total, before
        self._start = self._said = time.monotonic()

    def finished(self, count: int = 1) -> None:
        """Images that are labelled and written."""
        with self._lock:
            self.done += count
            self._step(count)

    def fail(self) -> None:
        """An image that could not be."""
        with self._lock:
            self.failed += 1
            self._bar.set_postfix(failed=self.failed, refresh=False)
            self._step(1)

    def within(self, file: str, share: float) -> None:
        """How much, 0..1, of a large image is done."""
        with self._lock:
            self._bar.set_postfix_str(f"{share:.0%} of a large image")
            if self._log_is_due():
                print(f"{one_line(file)}: {share:.0%}", file=sys.stderr, flush=True)

    def say(self, note: str) -> None:
        """Show a note; the same one only once."""
        with self._lock:
            if self._shown and note not in self._notes:
                self._notes.add(note)
                self._bar.write(f"note: {one_line(note)}", file=sys.stderr)

    def close(self) -> None:
        self._bar.close()

    def _step(self, count: int) -> None:
        self._bar.update(count)
        if self._log_is_due():
            here = self.done + self.failed
            rate = here / (time.monotonic() - self._start)
            left = (self._total - self._before - here) / rate
            failed = f", {self.failed} failed" if self.failed else ""
            print(
                f"{self._before + here} of {self._total} images{failed}, {rate:.3g} images/s, "
                f"{tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def _log_is_due(self) -> bool:
        """Whether a line is to be printed instead of a bar, which then counts as done."""
        now = time.monotonic()
        due = self._shown and self._bar.disable and now - self._said > LOG_SECONDS
        if due:
            self._said = now
        return due
