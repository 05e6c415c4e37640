"""Log set-up and rate-limited logging."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from termcolor import colored

_calls: Counter[tuple[Any, ...]] = Counter()
_last_logged: dict[tuple[Any, ...], float] = {}


class _ConsoleFormatter(logging.Formatter):
    """Coloured lines; the root of the logger's name is shown abbreviated."""

    def __init__(self, root: str, abbreviation: str, datefmt: str) -> None:
        super().__init__(colored("[%(asctime)s %(name)s]: ", "green") + "%(message)s", datefmt)
        self.root, self.abbreviation = root, abbreviation

    def format(self, record: logging.LogRecord) -> str:
        shown = logging.makeLogRecord(vars(record))  # other handlers get the record as it was
        if record.name.startswith(self.root + "."):
            shown.name = (self.abbreviation + record.name[len(self.root) :]).lstrip(".")
        line = super().format(shown)
        if record.levelno < logging.WARNING:
            return line
        return f"{colored(record.levelname, 'red', attrs=['bold'])} {line}"


@functools.cache
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Send logger ``name`` to stdout (rank 0 only) and to a file; the same call twice is one.

    Args:
        output: folder for ``log.txt``, or a file name in .txt or .log; ranks above 0 add
            ``.rank<N>``. None: no file.
        abbrev_name: stands for ``name`` on stdout; "" hides it, None is "d2" for detectron2.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    dates = "%m/%d %H:%M:%S"
    plain = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", dates)
    if distributed_rank == 0:
        if abbrev_name is None:
            abbrev_name = "d2" if name == "detectron2" else name
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(_ConsoleFormatter(name, abbrev_name, dates) if color else plain)
        logger.addHandler(console)
    if output is not None:
        path = PurePath(output)
        path = path if path.suffix in (".txt", ".log") else path / "log.txt"
        if distributed_rank > 0:
            path = path.with_name(f"{path.name}.rank{distributed_rank}")
        PathManager.mkdirs(str(path.parent))
        # Append mode lets several loggers share one file: each line is one flushed write.
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
        file.setFormatter(plain)
        logger.addHandler(file)
    return logger


def _calling_place() -> tuple[str, tuple[str, int]]:
    """Logger name, and (file, line), of the nearest frame outside this module."""
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    module = frame.f_globals["__name__"]
    place = (frame.f_code.co_filename, frame.f_lineno)
    return "detectron2" if module == "__main__" else module, place


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log the first ``n`` calls with the same ``key``: "caller" (file and line), "message", both.

    ``name`` of the logger: here and below, the calling module's by default.
    """
    module, place = _calling_place()
    parts = {"caller": place, "message": msg}
    identity = tuple(parts[part] for part in ((key,) if isinstance(key, str) else key))
    _calls[identity] += 1
    if _calls[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first of every ``n`` calls made from the same line."""
    module, place = _calling_place()
    if _calls[place] % n == 0:
        logging.getLogger(name or module).log(lvl, msg)
    _calls[place] += 1


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log at most once per ``n`` seconds from the same line."""
    module, place = _calling_place()
    now = time.monotonic()
    if now - _last_logged.get(place, float("-inf")) >= n:
        _last_logged[place] = now
        logging.getLogger(name or module).log(lvl, msg)


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """One-row Markdown table with the keys as headers; floats get 3 decimals."""
    look = {"tablefmt": "pipe", "floatfmt": ".3f", "stralign": "center", "numalign": "center"}
    return tabulate([list(small_dict.values())], headers=list(small_dict), **look)
