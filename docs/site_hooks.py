"""Hooks of mkdocs: pages of the repository that lie outside of docs/, and links to what is no page.

The same Markdown is read on a code host, where links lead to files of the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Page of the site: file of the repository.
OUTSIDE = {
    "index.md": "README.md",
    "datasets.md": "datasets/README.md",
    "examples.md": "examples/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_PAGES = {file: page for page, file in OUTSIDE.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```[^\S\n]*$)", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside."""
    for page, file in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site; of links to other files the text stays."""
    here = PurePosixPath(OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    parts = _FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda x: _led(x, here, page), part)
        for part in parts
    )


def _led(link: re.Match, here: PurePosixPath, page: Page) -> str:
    image, text, target, anchor = link.groups(default="")
    if re.match(r"[a-z]+:", target):
        return link[0]
    path = PurePosixPath(os.path.normpath(here.parent / target)).as_posix()
    if path in _PAGES:
        inside = _PAGES[path]
    elif path.startswith("docs/") and (ROOT / path).is_file():
        inside = path.removeprefix("docs/")
    else:
        return text
    where = os.path.relpath(inside, PurePosixPath(page.file.src_uri).parent)
    return f"{image}[{text}]({where}{anchor})"
