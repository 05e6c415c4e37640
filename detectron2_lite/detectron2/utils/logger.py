"""Log set-up and rate-limited logging."""

import functools
import logging
import sys
from collections import Counter
from pathlib import PurePath

from detectron2.utils.file_io import PathManager

_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_calls: Counter[tuple[object, ...]] = Counter()


class _ShortNames(logging.Formatter):
    """Shows the root of a logger's name abbreviated."""

    def __init__(self, root: str, abbreviation: str) -> None:
        super().__init__(_FORMAT, "%m/%d %H:%M:%S")
        self.root, self.abbreviation = root, abbreviation

    def format(self, record: logging.LogRecord) -> str:
        name = self.abbreviation + record.name.removeprefix(self.root)
        # A copy: other handlers get the record as it was.
        return super().format(logging.makeLogRecord(vars(record) | {"name": name}))


@functools.cache
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    name: str = "detectron2",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Send logger ``name`` to stdout (rank 0 only) and to a file; the same call twice is one.

    Args:
        output: folder for ``log.txt``, or a file name in .txt or .log; ranks above 0 add
            ``.rank<N>``. None: no file.
        abbrev_name: stands for ``name`` on stdout.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if distributed_rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(_ShortNames(name, abbrev_name or name))
        logger.addHandler(console)
    if output is not None:
        path = PurePath(output)
        path = path if path.suffix in (".txt", ".log") else path / "log.txt"
        if distributed_rank > 0:
            path = path.with_name(f"{path.name}.rank{distributed_rank}")
        PathManager.mkdirs(str(path.parent))
        # Append mode lets several loggers share one file: each line is one flushed write.
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
        file.setFormatter(_ShortNames(name, name))
        logger.addHandler(file)
    return logger


def log_first_n(
    lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str = "caller"
) -> None:
    """Log the first ``n`` calls with the same ``key``: "caller" (file and line) or "message".

    ``name`` of the logger: the calling module's by default.
    """
    frame = sys._getframe(2)  # 1 is the guard of this function, see detectron2._slice
    place = (frame.f_code.co_filename, frame.f_lineno)
    identity = {"caller": place, "message": (msg,)}[key]
    _calls[identity] += 1
    if _calls[identity] <= n:
        logging.getLogger(name or frame.f_globals["__name__"]).log(lvl, msg)
