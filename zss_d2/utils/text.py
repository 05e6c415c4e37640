"""Names as lines, tables and documents show them: class names, runs and folders can hold anything.

What figures need beyond that is in `zss_d2.drawing.lettering`.
"""

from __future__ import annotations

import re
import unicodedata

# Everything that Markdown (GitHub's, so also $ for formulas) could take for markup. Underscores
# within a word are none.
_MARKUP = re.compile(r"[\\`*\[\]<|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def one_line(text: object) -> str:
    """The text without line breaks: space between words is one blank, control codes are escaped."""
    line = " ".join(str(text).split())
    return "".join(
        # Cc: control codes, Cs: halves of a pair, which no file can hold.
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Cs")
        else char
        for char in line
    )


def markdown_text(text: object) -> str:
    """The text on one line, with what Markdown would take for markup escaped."""
    return _MARKUP.sub(lambda match: f"\\{match[0]}", one_line(text))


def shorten(text: str, width: int) -> str:
    """The text, its middle left out where it is wider than ``width`` letters."""
    if _width(text) <= width:
        return text
    start, end = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if _width(start + first + end) >= width:
            break
        start += first
        if _width(start + last + end) >= width:
            break
        end = last + end
    return f"{start}…{end}"


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """The text in lines of ``width`` letters, its middle left out where ``lines`` are too few.

    Lines end behind blanks and the separators of paths and names, if need be within a word.
    """
    rows = [""]
    for word in re.findall(r"[^/\s_-]*[/\s_-]|[^/\s_-]+", shorten(text, width * lines)):
        if rows[-1] and _width(rows[-1] + word.rstrip()) > width:
            rows.append("")
        for char in word:
            if _width(rows[-1] + char) > width and char != " ":
                rows.append("")
            rows[-1] += char
    return "\n".join(row.rstrip() for row in rows)


def _width(text: str) -> int:
    """Width in letters; East Asian characters are as wide as two."""
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)
