"""The user's words: classes to label, words that compete as background, what is left unknown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np

from zss_d2.clip.wording import Vocabulary, check_templates
from zss_d2.errors import ZssError
from zss_d2.utils.text import one_line

BACKGROUND = "background"
UNKNOWN = "unknown"
# Names that a result uses for itself.
_RESERVED = (BACKGROUND, UNKNOWN)
# Label ids of 8 and of 16 bit; the two largest are no classes.
_MAX_CLASSES = 65534


@dataclass(frozen=True)
class Words:
    """What an image is to be labelled with, in the order that decides the label ids.

    A class is a name and further wordings of it, whose embeddings are averaged. Without background
    words the ids are 0, 1, ... of ``classes``; with some, 0 is the background and the classes
    follow. Pixels whose best score is too low get `unknown_id`.

    Attributes:
        classes: wordings of every class, the first of which is its name.
        background: wordings of every background word.
        unknown_below: least score, 0..1, by class name; classes that are not named have 0.
        templates: sentences with one ``{}``, where the words go; None: those of the model.
    """

    classes: tuple[tuple[str, ...], ...]
    background: tuple[tuple[str, ...], ...] = ()
    unknown_below: Mapping[str, float] = field(default_factory=dict)
    templates: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        background: Sequence[str] = (),
        unknown_below: float | Mapping[str, float] = 0.0,
        templates: Sequence[str] | None = None,
    ) -> Words:
        """Words as users write them: ``sofa|couch`` is one class with two wordings.

        Args:
            classes: one text per class.
            background: one text per background word.
            unknown_below: least score, 0..1, of all classes, or by class name.
            templates: see `Words`.

        Raises:
            ZssError: no class; an empty or doubled wording; a name that results use themselves; a
                threshold that is no score or of no class; a bad template.
        """
        classes, background = _listed("classes", classes), _listed("background", background)
        if not classes:
            raise ZssError("there are no classes; give one word or more")
        split = [_wordings(text) for text in classes], [_wordings(text) for text in background]
        _check_different(*split)
        if len(classes) >= _MAX_CLASSES:
            raise ZssError(f"{len(classes)} classes; label ids of 16 bit take {_MAX_CLASSES - 1}")
        if templates is not None:
            templates = tuple(_listed("templates", templates))
            check_templates(templates, "templates")
        names = [wordings[0] for wordings in split[0]]
        return cls(*map(tuple, split), _thresholds(names, unknown_below), templates)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by label id: ``background`` first, if there are background words."""
        own = tuple(wordings[0] for wordings in self.classes)
        return (BACKGROUND, *own) if self.background else own

    @property
    def unknown_id(self) -> int:
        """Label of unknown pixels: 255, or 65535 where the ids need 16 bit."""
        return int(np.iinfo(self.dtype).max)

    @property
    def nodata_id(self) -> int:
        """Label of pixels that a raster image says hold no data."""
        return self.unknown_id - 1

    @property
    def dtype(self) -> np.dtype:
        """Of label maps: uint8 as long as all ids fit, else uint16."""
        return np.dtype(np.uint8 if len(self.names) <= 254 else np.uint16)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the model chooses from: all classes, then all background words."""
        wordings = (*self.classes, *self.background)
        synonyms = {first: rest for first, *rest in wordings if rest}
        return Vocabulary(tuple(x[0] for x in wordings), synonyms, self.templates)

    @property
    def label_ids(self) -> np.ndarray:
        """Label id of every entry of `vocabulary`: (classes + background words,)."""
        first = 1 if self.background else 0
        ids = [*range(first, first + len(self.classes)), *[0] * len(self.background)]
        return np.array(ids, self.dtype)

    @property
    def thresholds(self) -> np.ndarray:
        """Least score of every entry of `vocabulary`, float32; 0 of background words."""
        own = [self.unknown_below.get(wordings[0], 0.0) for wordings in self.classes]
        return np.array([*own, *[0.0] * len(self.background)], np.float32)


def read_words(path: Path) -> list[str]:
    """Words of a text file, one per line; ``#`` begins a comment, empty lines do not count.

    Raises:
        ZssError: the file is missing, no text, or holds no word.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ZssError(f"{path} is no UTF-8 text; give one word per line") from None
    except OSError as error:
        raise ZssError(f"{path}: {error.strerror}; give a text file, one word per line") from None
    words = split_lines(text)
    if not words:
        raise ZssError(f"{path} holds no word; give one per line")
    return words


def split_lines(text: str) -> list[str]:
    """Words of a text, one per line; ``#`` begins a comment, empty lines do not count."""
    return [word for line in text.splitlines() if (word := line.split("#", 1)[0].strip())]


def _listed(kind: str, texts: Iterable[str]) -> list[str]:
    """Texts in their order, which a set has not."""
    if isinstance(texts, (str, bytes, Set)) or not isinstance(texts, Iterable):
        raise ZssError(f"{kind} is {texts!r}; give a list of texts")
    return list(texts)


def _wordings(text: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise ZssError(f"a class is {text!r}; give words as text")
    wordings = tuple(one_line(part) for part in text.split("|"))
    if not all(wordings):
        raise ZssError(f"a class is {text!r}, with an empty wording; give words, 'sofa|couch'")
    return wordings


def _check_different(classes: Sequence[tuple[str, ...]], background: Sequence[tuple[str, ...]]):
    taken: dict[str, str] = {}
    for wordings in (*classes, *background):
        if wordings[0].casefold() in _RESERVED and wordings in classes:
            hint = "give what it shows as background words" if wordings[0] == BACKGROUND else ""
            raise ZssError(
                f"{wordings[0]!r} is what results call pixels of no class; use another name"
                f"{', or ' * bool(hint)}{hint}"
            )
        for wording in wordings:
            key = wording.casefold()
            if key in taken:
                raise ZssError(f"{wording!r} is given twice (see {taken[key]!r}); leave one out")
            taken[key] = "|".join(wordings)


def _thresholds(
    names: Sequence[str], unknown_below: float | Mapping[str, float]
) -> dict[str, float]:
    if not isinstance(unknown_below, Mapping):
        unknown_below = dict.fromkeys(names, unknown_below)
    for name, value in unknown_below.items():
        if name not in names:
            raise ZssError(
                f"unknown_below names {name!r}, which is no class; give one of {', '.join(names)}"
            )
        is_score = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not is_score or not 0 <= value <= 1:
            raise ZssError(f"unknown_below is {value!r} for {name!r}; give a score, 0 to 1")
    return {name: float(value) for name, value in unknown_below.items() if value}
