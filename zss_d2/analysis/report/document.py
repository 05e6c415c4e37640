"""A page of headings, paragraphs, tables and pictures, as Markdown or as one HTML file.

All text is plain: what either format would take for markup is escaped.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.figure import Figure

from zss_d2.analysis.drawing import png
from zss_d2.utils.text import markdown_text, one_line

FIGURE_DPI = 150
SCREEN_DPI = 96
STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5b6675; --line: #dfe4ea; --tint: #f5f7fa; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff;
       max-width: 1080px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-bottom: .3rem;
     border-bottom: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .4rem 0; max-width: 52rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th:first-child, td:first-child, .text td { text-align: left; }
.text th { text-align: left; }
th { background: var(--tint); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; }
small { display: block; color: var(--soft); font-size: .78rem; white-space: nowrap; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .87rem; max-width: 52rem; }
"""


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
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

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: bool = True


@dataclass(frozen=True)
class Picture:
    """``name`` is that of its file, without suffix; ``width`` is that on the page, px."""

    name: str
    png: bytes
    caption: str
    width: int


def drawn(name: str, figure: Figure, caption: str) -> Picture:
    """A figure as a picture; ``name`` may hold anything, and no two names become one file."""
    file_name = re.sub(r"[^\w.-]", lambda match: f"={ord(match[0]):x}=", name)
    width = round(figure.get_figwidth() * SCREEN_DPI)
    return Picture(file_name, png(figure, FIGURE_DPI), caption, width)


Block: TypeAlias = Heading | Paragraph | Table | Picture


def to_markdown(blocks: Sequence[Block], picture_folder: str) -> str:
    """Markdown that refers to the pictures in a folder beside it."""
    return "\n\n".join(_markdown(block, picture_folder) for block in blocks) + "\n"


def picture_files(blocks: Sequence[Block]) -> Mapping[str, bytes]:
    """Name and content of the files that `to_markdown` refers to.

    Raises:
        ValueError: two pictures have one name.
    """
    pictures = [block for block in blocks if isinstance(block, Picture)]
    files = {f"{picture.name}.png": picture.png for picture in pictures}
    if len(files) < len(pictures):
        raise ValueError("two pictures of the document have one name")
    return files


def to_html(blocks: Sequence[Block]) -> str:
    """A page that needs nothing but itself."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_escape(title)}</title>",
            f"<style>{STYLE}</style></head>",
            "<body>",
            *(_html(block) for block in blocks),
            "</body></html>\n",
        )
    )


def _markdown(block: Block, picture_folder: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {markdown_text(block.text)}"
    if isinstance(block, Paragraph):
        return markdown_text(block.text)
    if isinstance(block, Picture):
        caption = markdown_text(block.caption)
        return f"![{caption}]({picture_folder}/{block.name}.png)\n\n{caption}"
    lines = [
        list(map(markdown_text, block.headers)),
        ["---", *(len(block.headers) - 1) * ["--:" if block.numbers else "---"]],
    ]
    lines += [[_markdown_cell(cell) for cell in row] for row in block.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    text = f"**{text}**" if cell.strong else text
    return f"{text} ({markdown_text(cell.note)})" if cell.note else text


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode("ascii")
        caption = _escape(block.caption)
        return (
            f'<figure><img width="{block.width}" alt="{caption}" '
            f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
        )
    head = "".join(f"<th>{_escape(text)}</th>" for text in block.headers)
    rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in block.rows)
    kind = "" if block.numbers else ' class="text"'
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _html_cell(cell: Cell) -> str:
    text = _escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.strong else text
    note = f"<small>{_escape(cell.note)}</small>" if cell.note else ""
    return f"<td>{text}{note}</td>"


def _escape(text: str) -> str:
    return html.escape(one_line(text))
