"""Text in figures: as it is written, in fonts that have its characters.

Without this, Matplotlib takes ``$`` for a formula, leaves names that begin with ``_`` out of
legends and draws boxes for characters that its font lacks.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.legend import Legend

from zss_d2.utils.text import one_line, shorten

logger = logging.getLogger(__name__)
# A missing weight matters only for fonts that are then used. A filter, as a level that is set for a
# while would be set for all threads.
logging.getLogger("matplotlib.font_manager").addFilter(
    lambda record: "Failed to find font weight" not in record.msg
)

# Width of the name of a class or a run in a figure, letters.
LABEL_WIDTH = 28
WEIGHTS = ("normal", "bold")


def class_labels(names: Sequence[str]) -> list[str]:
    """What figures call the classes: their names where possible, and no two the same.

    Long names lose their middle. A name that no font of this machine can draw becomes ``class N``,
    which is logged.
    """
    lines = [one_line(name) for name in names]
    drawable = [bool(line) and not _fonts(frozenset(line))[1] for line in lines]
    labels = [
        shorten(line, LABEL_WIDTH) if possible else f"class {index}"
        for index, (line, possible) in enumerate(zip(lines, drawable, strict=True))
    ]
    if not all(drawable):
        _tell_once(
            ", ".join(
                f"{label}: {line!r}"
                for label, line, possible in zip(labels, lines, drawable, strict=True)
                if not possible
            )
        )
    return _distinct(labels)


def run_labels(names: Sequence[str]) -> list[str]:
    """What legends call the runs: their names, long ones without their middle, no two the same."""
    return _distinct([shorten(drawn_title(name), LABEL_WIDTH) for name in names])


def _distinct(labels: Sequence[str]) -> list[str]:
    times = Counter(labels)
    return [
        f"{shorten(label, LABEL_WIDTH - 6)} (#{index})" if times[label] > 1 else label
        for index, label in enumerate(labels)
    ]


def drawn_title(text: str) -> str:
    """The text on one line; characters that no font has are escaped, as in ``\\u732b``."""
    line = one_line(text)
    lacking = _fonts(frozenset(line))[1]
    return "".join(x.encode("unicode_escape").decode() if x in lacking else x for x in line)


def style(texts: Iterable[str]) -> dict[str, Any]:
    """Properties of Matplotlib's texts for these: no formulas, and fonts with their characters."""
    return {"parse_math": False, "fontfamily": _fonts(frozenset("".join(texts)))[0]}


def legend(
    owner: Figure | Axes, handles: Sequence[Artist], labels: Sequence[str], **options: Any
) -> Legend:
    """A legend with exactly these labels."""
    # A label that begins with "_" means "not in the legend" to Matplotlib.
    box = owner.legend(handles=handles, labels=[str(i) for i in range(len(handles))], **options)
    properties = style(labels)
    for text, label in zip(box.get_texts(), labels, strict=True):
        text.update({"text": label, **properties})
    return box


def font_runs(text: str) -> list[tuple[str, int, str]]:
    """Pieces of the text, each with a font that has its characters: file, number within the file.

    A character that no font has is left to the first one.
    """
    characters = frozenset(text)
    families = _fonts(characters)[0]
    covered = {family: _covered(family, characters) for family in families}
    runs: list[tuple[str, str]] = []
    for char in text:
        family = next((x for x in families if char in covered[x]), families[0])
        if runs and runs[-1][0] == family:
            family, char = family, runs.pop()[1] + char
        runs.append((family, char))
    files = [(_files(family)[0], piece) for family, piece in runs]
    return [(str(file), _face(file).get("face_index", 0), piece) for file, piece in files]


def _fonts(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Font families for the characters, and those characters that no family has."""
    families, lacking = _families(characters, tuple(mpl.rcParams["font.family"]))
    return list(families), lacking


@functools.lru_cache
def _families(
    characters: frozenset[str], preferred: tuple[str, ...]
) -> tuple[tuple[str, ...], frozenset[str]]:
    families = list(preferred)
    lacking = characters.difference(*(_covered(family, characters) for family in families))
    others = _other_families() if lacking else []
    while lacking and others:
        covered = {family: _covered(family, lacking) for family in others}
        others = [family for family in others if covered[family]]
        if others:
            families.append(max(others, key=lambda family: len(covered[family])))
            lacking -= covered[families[-1]]
    return tuple(families), lacking


def _other_families() -> list[str]:
    """Families of this machine, without Matplotlib's own for formulas and those of mere boxes."""
    bundled = Path(mpl.get_data_path())
    names = {
        entry.name
        for entry in fontManager.ttflist
        if bundled not in Path(entry.fname).parents or entry.name.startswith("DejaVu Sans")
    }
    return sorted(name for name in names if "lastresort" not in name.replace(" ", "").lower())


def _covered(family: str, characters: frozenset[str]) -> frozenset[str]:
    """Those of the characters that the family has in all `WEIGHTS`."""
    for path in _files(family):
        try:
            # Unlike Matplotlib's cached fonts this one falls back to no other.
            font = FT2Font(path, **_face(path))
        except (OSError, RuntimeError):
            return frozenset()
        if not font.scalable:  # colour emoji, which Matplotlib cannot draw
            return frozenset()
        characters = frozenset(x for x in characters if font.get_char_index(ord(x)))
    return characters


def _files(family: str) -> list[str]:
    """The files that Matplotlib takes for a family in `WEIGHTS`."""
    return [findfont(FontProperties(family=family, weight=weight)) for weight in WEIGHTS]


def _face(path: str) -> dict[str, int]:
    """Which font of a collection it is; Matplotlib before 3.11 always takes the first."""
    index = getattr(path, "face_index", 0)
    return {"face_index": index} if index else {}


@functools.cache
def _tell_once(names: str) -> None:
    logger.warning(
        "no installed font has the characters of some names, so figures show numbers (%s); install "
        "a font that has them, such as Noto Sans",
        names,
    )
