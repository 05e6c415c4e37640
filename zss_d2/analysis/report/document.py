"""A page of headings, paragraphs, tables and pictures, as Markdown or as one HTML file.

All text is plain: the templates escape what either format would take for markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from zss_d2.drawing.figures import encode
from zss_d2.utils.text import markdown_text, one_line
from zss_d2.utils.writing import write_atomic

FIGURE_DPI = 150
SCREEN_DPI = 96
# Of report.md, beside it.
PICTURE_FOLDER = "report_pictures"


@dataclass(frozen=True)
class Heading:
    kind: ClassVar = "heading"
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar = "paragraph"
    text: str


@dataclass(frozen=True)
class Cell:
    """``note`` stands small below the text; ``strong`` is the best of its column."""

    text: str
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """``numbers`` are set to the right, all but the first column."""

    kind: ClassVar = "table"
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: bool = True


@dataclass(frozen=True)
class Picture:
    """``name`` is that of its file, without suffix; ``width`` is that on the page, px."""

    kind: ClassVar = "picture"
    name: str
    png: bytes
    caption: str
    width: int

    @property
    def file(self) -> str:
        return f"{self.name}.png"

    @property
    def data_uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def drawn(name: str, figure: Figure, caption: str) -> Picture:
    """A figure as a picture; ``name`` may hold anything, and no two names become one file."""
    file_name = re.sub(r"[^\w.-]", lambda match: f"={ord(match[0]):x}=", name)
    width = round(figure.get_figwidth() * SCREEN_DPI)
    return Picture(file_name, encode(figure, dpi=FIGURE_DPI), caption, width)


Block: TypeAlias = Heading | Paragraph | Table | Picture


def to_markdown(blocks: Sequence[Block], picture_folder: str) -> str:
    """Markdown that refers to the pictures in a folder beside it."""
    template = _environment(lambda text: Markup(markdown_text(text))).get_template("report.md.j2")
    return template.render(blocks=blocks, pictures=picture_folder)


def to_html(blocks: Sequence[Block]) -> str:
    """A page that needs nothing but itself; its title is the first heading."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    environment = _environment(one_line)
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2").render(blocks=blocks, title=title)


def _breakable(text: str) -> Markup:
    """Text that may be broken behind what separates the parts of paths and names."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_-])(?=\w)", one_line(text)))


def _environment(prepare: Callable[[object], str]) -> Environment:
    """Templates in which every value passes ``prepare``; what is no markup then is escaped."""
    return Environment(
        loader=PackageLoader("zss_d2.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else prepare(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def picture_files(blocks: Sequence[Block]) -> Mapping[str, bytes]:
    """Name and content of the files that `to_markdown` refers to.

    Raises:
        ValueError: two pictures have one name.
    """
    pictures = [block for block in blocks if isinstance(block, Picture)]
    files = {picture.file: picture.png for picture in pictures}
    if len(files) < len(pictures):
        raise ValueError("two pictures of the document have one name")
    return files


def write_document(blocks: Sequence[Block], folder: Path) -> None:
    """Write report.html, report.md and the pictures of the latter, each atomically."""
    for name, content in picture_files(blocks).items():
        write_atomic(
            folder / PICTURE_FOLDER / name, lambda path, data=content: path.write_bytes(data)
        )
    for name, text in (
        ("report.md", to_markdown(blocks, PICTURE_FOLDER)),
        ("report.html", to_html(blocks)),
    ):
        write_atomic(folder / name, lambda path, data=text: path.write_text(data, "utf-8"))
