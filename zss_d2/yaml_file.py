"""Reading yaml files: plain data only, every key once, complaints with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from zss_d2.errors import ZssError


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
        raise ZssError(f"{path}: {line}invalid yaml ({reason:.120}); mend that line") from None


class UniqueKeyLoader(yaml.SafeLoader):
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
