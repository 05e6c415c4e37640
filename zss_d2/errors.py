"""The one exception for what a user can mend, and how it is shown."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class ZssError(RuntimeError):
    """Bad input: a missing folder, a wrong mask value, a checkpoint of another model...

    The message is a single line that names the file or key, the offending value and the remedy.
    Command lines print it without a traceback and exit with status 2.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def user_message(error: BaseException) -> str:
    """Return the line to show for ``error``.

    A ``DataLoader`` worker re-raises with its whole traceback as the message; the last line of that
    holds the original text.
    """
    text = str(error)
    marker = f"{ZssError.__name__}: "
    return text.rsplit(marker, 1)[-1].strip() if marker in text else text


def command(function: Callable[P, int]) -> Callable[P, int]:
    """Make a function that returns an exit status end with one line and status 2 on bad input."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return function(*args, **kwargs)
        except (ZssError, OSError) as error:
            print(f"error: {user_message(error)}", file=sys.stderr)
            return 2

    return run
