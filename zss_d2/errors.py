"""The one exception for what a user can mend, and how it is shown."""

from __future__ import annotations


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
