"""Reading yaml files: plain data only, every key once, complaints with file and line."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import yaml

from zss_d2.config.values import shown
from zss_d2.errors import ZssError
from zss_d2.utils.installation import config_folder

_BASE = "_BASE_"


def read_yaml(path: Path, what: str) -> tuple[str, Any]:
    """Return the text of a file and what it says; a tag in it that would run code is an error.

    Args:
        what: the file is, for the message.

    Raises:
        ZssError: the file cannot be read, is no yaml, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, yaml.load(text, UniqueKeyLoader)
    except OSError as error:
        raise ZssError(f"{path}: cannot read {what} ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ZssError(f"{path}: {what} is no text in UTF-8; save it as such") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", "") or "not readable"
        raise ZssError(f"{path}: {line}invalid yaml ({reason:.120}); fix that line") from None


def read_with_bases(path: Path, below: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Read a config file and its bases: [(path, content without ``_BASE_``)], bases first.

    Args:
        below: the files that led here.

    Raises:
        ZssError: a file is missing, holds no keys, or is its own base.
    """
    origin = f"{below[-1]}: the {_BASE} {path}" if below else f"config file {path}"
    if os.path.realpath(path) in map(os.path.realpath, below):
        raise ZssError(f"{origin} has this file as its own base; name another one")
    if not os.path.isfile(path):
        raise ZssError(_missing(path, origin))
    content = read_yaml(path, "the config file")[1]
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {shown(content)}"
        raise ZssError(f"{path}: the config file {found}; write lines of KEY: VALUE")
    given = content.pop(_BASE, [])
    bases = given if isinstance(given, list) else [given]
    if not all(isinstance(base, str) and base for base in bases):
        raise ZssError(f"{path}: {_BASE} is {shown(given)}; give the path of a config file")
    files = []
    for base in bases:
        files += read_with_bases(path.parent / Path(base).expanduser(), (*below, path))
    return [*files, (path, content)]


def _missing(path: Path, origin: str) -> str:
    if os.path.isdir(path):
        run = path / "config.yaml"
        remedy = f"{run}" if run.is_file() else f"a file, see {config_folder()}"
        return f"{origin} is a folder; give {remedy}"
    others = [other.name for other in path.parent.glob("*.yaml")]
    near = difflib.get_close_matches(path.name, others, n=1, cutoff=0.8)
    remedy = f"did you mean {path.parent / near[0]}?" if near else f"see {config_folder()}"
    return f"{origin} does not exist; {remedy}"


class UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that is given twice, of which yaml would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node)
                if key in seen:
                    problem = f"key {key!r} is given twice"
                    raise yaml.constructor.ConstructorError(
                        None, None, problem, key_node.start_mark
                    )
                seen.add(key)
        return mapping
