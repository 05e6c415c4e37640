"""What a finished run has left in its folder, as the report reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import StoredCounts, counts_file, read_counts
from zss_d2.evaluation.results import read_results


@dataclass(frozen=True)
class FinishedRun:
    """A run: its name in the report, its folder and the content of its results.json."""

    name: str
    folder: Path
    metrics: dict[str, dict[str, float | None]]
    provenance: dict[str, Any]

    def counts(self, dataset: str) -> StoredCounts:
        """Pixel counts; raises ZssError where there are none."""
        return read_counts(counts_file(self.folder, dataset))

    def history(self) -> list[dict[str, float]]:
        """Lines of metrics.json; empty where nothing was trained.

        Raises:
            ZssError: a line is not JSON.
        """
        path = self.folder / "metrics.json"
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines if line]
        except ValueError as error:
            raise ZssError(f"{path} is damaged ({error}); remove its last line") from None


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Read results.json of every folder.

    Raises:
        ZssError: a folder has no (readable) results.json, or is given twice.
    """
    check_different(folders)
    runs = []
    for name, folder in zip(short_names(folders), folders, strict=True):
        path = folder / "results.json"
        if not path.is_file():
            raise ZssError(f"{folder} is no folder of a finished run: results.json is missing")
        try:
            content = read_results(path)
            provenance = content.pop("provenance")
        except (ValueError, KeyError) as error:
            raise ZssError(
                f"{path} cannot be read ({type(error).__name__}); evaluate the run again"
            ) from None
        runs.append(FinishedRun(name, folder, content, provenance))
    return runs


def check_different(folders: Sequence[Path]) -> None:
    """Raise `ZssError` naming a folder that is given twice, in whatever spelling."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (other := seen.get(folder.resolve())) is not None:
            spelling = f" (also as {other})" if other != folder else ""
            raise ZssError(f"{folder} is given twice{spelling}; name everything once")
        seen[folder.resolve()] = folder


def custom_descriptions(folder: Path) -> list[Path]:
    """The files of ``DATASETS.CUSTOM`` that a run used, by the config.yaml in its folder.

    A relative path started where the training did: usually here, else above the run's folder. One
    that is found nowhere is returned as it is.

    Raises:
        ZssError: config.yaml cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return []
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = config.get("DATASETS", {}).get("CUSTOM", ())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ZssError(
            f"{path} cannot be read ({type(error).__name__}); evaluate the run again"
        ) from None
    starts = (Path(), *folder.resolve().parents)
    return [
        next((start / name for start in starts if (start / name).is_file()), Path(name))
        for name in named
    ]


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
