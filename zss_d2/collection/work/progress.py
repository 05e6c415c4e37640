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
        self.first_failure = ""
        self._note: str | None = None
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

    def fail(self, message: str) -> None:
        """An image that is not; the first one is shown at once, the rest at the end as a number."""
        with self._lock:
            self.failed += 1
            if not self.first_failure:
                self.first_failure = message
                if self._shown:
                    self._bar.write(f"failed: {one_line(message)}; going on", file=sys.stderr)
            self._step(1)

    def say(self, note: str) -> None:
        """Show a note, once."""
        with self._lock:
            if self._shown and self._note is None:
                self._note = note
                self._bar.write(f"note: {one_line(note)}", file=sys.stderr)

    def close(self) -> None:
        self._bar.close()

    def _step(self, count: int) -> None:
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and self._shown and now - self._said > LOG_SECONDS:
            self._said = now
            here = self.done + self.failed
            rate = here / (now - self._start)
            left = (self._total - self._before - here) / rate
            print(
                f"{self._before + here} of {self._total} images, {rate:.3g} images/s, "
                f"{tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )
