"""The two kinds of formats: a file per image, and a file per collection of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from zss_d2.predict.options import OPACITY
from zss_d2.utils.writing import write_atomic

if TYPE_CHECKING:
    from zss_d2.predict.result import Prediction
    from zss_d2.predict.words import Words

# What `zss_d2.predict.formats.record` returns.
Record = dict[str, Any]


@dataclass(frozen=True)
class ImageFormat:
    """A format with a file per image.

    Attributes:
        about: what it is, in a line.
        folder: of its files, within that of all results.
        suffix: of its files.
        encode: writes a prediction to a path, which exists and is empty.
    """

    about: str
    folder: str
    suffix: str
    encode: Callable[..., None]

    def path(self, folder: Path, name: str) -> Path:
        """Where the file of an image lies: ``name`` is its path in its tree, without suffix."""
        return folder / self.folder / f"{name}{self.suffix}"

    def write(
        self, path: Path, prediction: Prediction, *, opacity: float = OPACITY, legend: bool = True
    ) -> None:
        """Write the file of an image, atomically.

        Args:
            opacity: 0..1, of the labels in an overlay; other formats do without.
            legend: draw one below an overlay.

        Raises:
            WriteError: the disk is full, or anything else is in the way.
        """
        encode = partial(self.encode, prediction, opacity, legend)
        write_atomic(path, encode, flush=False)


@dataclass(frozen=True)
class CollectionFormat:
    """A format with a file for all images.

    Attributes:
        about: what it is, in a line.
        file: its name.
        needs_masks: whether it is made of records with masks.
        encode: writes records to an open file, one after the other.
        extras: further files: what their names end in, instead of the suffix, and their content.
    """

    about: str
    file: str
    needs_masks: bool
    encode: Callable[[TextIO, Words, Iterable[Record]], None]
    extras: Sequence[tuple[str, Callable[[Words], str]]] = ()

    def path(self, folder: Path) -> Path:
        """Where the file lies, within the folder of all results."""
        return folder / self.file

    def path_of_one(self, folder: Path, name: str) -> Path:
        """Where the file lies if it is about a single image."""
        file = Path(self.file)
        return folder / file.stem / f"{name}{file.suffix}"

    def write(self, path: Path, words: Words, records: Iterable[Record]) -> list[Path]:
        """Write the file and those that go with it, atomically; returns their paths.

        Args:
            words: what all images were labelled with.
            records: one per image, see `zss_d2.predict.formats.record`; they are read once, and
                none is kept.

        Raises:
            WriteError: the disk is full, or anything else is in the way.
        """
        write_atomic(path, partial(self._fill, words, records))
        written = [path]
        for ending, content in self.extras:
            extra = path.with_name(f"{path.name.removesuffix(path.suffix)}{ending}")
            text = content(words)
            write_atomic(extra, lambda file, text=text: file.write_text(text, encoding="utf-8"))
            written.append(extra)
        return written

    def _fill(self, words: Words, records: Iterable[Record], path: Path) -> None:
        # CSV has its own line ends, and a name may hold any.
        with path.open("w", encoding="utf-8", newline="") as file:
            self.encode(file, words, records)
