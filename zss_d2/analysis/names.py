"""Names that tell folders and files apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zss_d2.errors import ZssError


def check_different(paths: Sequence[Path]) -> None:
    """Raise `ZssError` naming a path that is given twice, in whatever spelling."""
    seen: dict[Path, Path] = {}
    for path in paths:
        if (other := seen.get(path.resolve())) is not None:
            spelling = f" (also as {other})" if other != path else ""
            raise ZssError(f"{path} is given twice{spelling}; name everything once")
        seen[path.resolve()] = path


def short_names(folders: Sequence[Path]) -> list[str]:
    """The parts of the paths that tell them apart; of a single one the last two parts."""
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    shortest = min(map(len, parts))
    first = next((i for i in range(shortest) if len({x[i] for x in parts}) > 1), shortest - 1)
    rest = [x[first:] for x in parts]
    shortest = min(map(len, rest))
    same = next((i for i in range(1, shortest) if len({x[-i] for x in rest}) > 1), shortest)
    return ["/".join(x[: len(x) - same + 1]) for x in rest]


def config_names(paths: Sequence[Path]) -> list[str]:
    """Names of files without suffix; with the folders that tell them apart if two are alike."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    files = [path.resolve() for path in paths]
    common = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(common).with_suffix("").as_posix() for file in files]
