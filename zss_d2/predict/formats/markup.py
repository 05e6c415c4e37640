"""Text for XML, which has no way to write some characters that names of files may hold."""

from __future__ import annotations

import re

_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def possible(text: str) -> str:
    """The text with what XML cannot hold escaped as in Python: ``\\x07``."""
    return _IMPOSSIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
