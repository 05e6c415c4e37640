"""The one exception for what a user can fix, and how it is shown."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
# Exit statuses of a command that a signal ended, as shells have them.
INTERRUPTED = 128 + signal.SIGINT
NO_READER = 128 + 13  # SIGPIPE, which not every system knows


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
    holds the original text. Of an ``OSError`` the file comes first.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    marker = f"{ZssError.__name__}: "
    return text.rsplit(marker, 1)[-1].strip() if marker in text else text


def command(function: Callable[P, int]) -> Callable[P, int]:
    """Make a function that returns an exit status end with one line and status 2 on bad input.

    Ctrl-C ends it with a line and status 130. If what reads its output has gone, such as ``head``,
    it ends without a word and with status 141, as other programs do. Letters that the output's
    encoding lacks are escaped.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        _let_output_take_all()
        try:
            status = function(*args, **kwargs)
            # Otherwise the interpreter finds out at its end, with a message of its own.
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            return NO_READER
        except (ZssError, OSError) as error:
            print(f"error: {user_message(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        return status

    return run


def _let_output_take_all() -> None:
    """Escape what its encoding lacks, as standard error does: names of files can hold anything."""
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper) and output.errors == "strict":
        output.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Let the interpreter find nothing to complain of when it flushes the output at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # there is no file behind the output
        return
