"""Command lines: a mistake in one is a single line, found before any work starts."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from zss_d2.errors import ZssError
from zss_d2.utils.cores import cpu_cores

# More than anybody counts to here, and what every library takes.
MAX_COUNT = 2**31 - 1
# Seeds that every random generator takes.
MAX_SEED = 2**32 - 1


class Parser(argparse.ArgumentParser):
    """Shows its description as it stands; a mistake is a `ZssError` instead of the whole usage."""

    def __init__(self, description: str | None, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)

    def error(self, message: str) -> NoReturn:
        raise ZssError(f"{message}; --help lists all options")

    def add_workers(self) -> None:
        """``--workers N``: processes that share the work."""
        self.add_argument(
            "--workers",
            type=whole(1),
            default=len(cpu_cores()),
            metavar="N",
            help="worker processes (default: one per core, now %(default)s)",
        )

    def add_runs(self) -> None:
        """``RUN...``: folders that trainings have left."""
        self.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")

    def add_over(self) -> None:
        """``--over KEY...``: runs that differ in these alone are repetitions of one."""
        self.add_argument(
            "--over",
            nargs="*",
            default=[],
            metavar="KEY",
            help="keys that repetitions may differ in",
        )

    def add_opts(self) -> None:
        """``--opts KEY VALUE ...``: config keys and their values, in turn."""
        self.add_argument(
            "--opts",
            nargs="*",
            default=[],
            metavar="KEY VALUE",
            help="config keys and values, in turn",
        )


def whole(low: int, high: int = MAX_COUNT, or_0: bool = False) -> Callable[[str], int]:
    """The ``type`` of an argument that is a whole number from ``low`` to ``high``, or 0 as well."""
    zero = "0, or " if or_0 else ""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < low and not (or_0 and value == 0):
            raise argparse.ArgumentTypeError(f"{value} is too small; give {zero}{low} or more")
        if value > high:
            raise argparse.ArgumentTypeError(f"{text:.20} is too large; give {high} or less")
        return value

    return read


def between(low: float, high: float) -> Callable[[str], float]:
    """The ``type`` of an argument that is a number from ``low`` to ``high``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} to {high:g}")
        return value

    return read


def check_output(path: Path, folder: bool = False, option: str = "--output") -> None:
    """Raise `ZssError` where nothing could be written at ``path``, which need not exist.

    Args:
        path: a file to write, or a folder to write files into.
        folder: it is a folder.
        option: that names the path.
    """
    shown = f"{option} {path}"
    if folder and path.is_file():
        raise ZssError(f"{shown} is a file; give a folder")
    if not folder and path.is_dir():
        raise ZssError(f"{shown} is a folder; give a file")
    place = path if folder else path.parent
    there = next((p for p in (place, *place.absolute().parents) if os.path.lexists(p)), place)
    if not there.is_dir():
        raise ZssError(f"{shown}: {there} is no folder; give another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ZssError(f"{shown}: {there} cannot be written to; give another {option}")
