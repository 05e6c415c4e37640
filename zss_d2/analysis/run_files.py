"""What a finished run has left in its folder, as the report reads it."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zss_d2.config.yaml_file import read_yaml
from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import StoredCounts, counts_file, read_counts
from zss_d2.evaluation.results import PROVENANCE, read_results


@dataclass(frozen=True)
class FinishedRun:
    """A run: its name in the report, its folder and what it holds.

    Args:
        metrics, provenance: of results.json.
        history: lines of metrics.json; empty where nothing was trained.
    """

    name: str
    folder: Path
    metrics: dict[str, dict[str, float | None]]
    provenance: dict[str, Any]
    history: list[dict[str, float]]

    def counts(self, dataset: str) -> StoredCounts:
        """Pixel counts; raises ZssError where there are none."""
        return read_counts(counts_file(self.folder, dataset))


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ZssError(
            f"{path} is no text ({error.reason}); move it elsewhere, the report then has no "
            "training curves"
        ) from None
    return [_metrics_line(path, *pair) for pair in enumerate(lines, start=1) if pair[1].strip()]


def _metrics_line(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("iteration"), int)
        or not all(isinstance(value, (int, float)) for value in content.values())
    ):
        raise ZssError(
            f"{path} is damaged: line {number} is {reprlib.repr(line)}, not iteration and metrics "
            "of a training (a run that is killed can leave half a line); take that line out"
        )
    return content


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Read results.json and metrics.json of every folder.

    Raises:
        ZssError: a folder has no results.json, has one of them that no run has written, or is given
            twice.
    """
    check_different(folders)
    runs = []
    for name, folder in zip(short_names(folders), folders, strict=True):
        content = read_results(folder / "results.json")
        provenance = content.pop(PROVENANCE)
        history = _read_history(folder / "metrics.json")
        runs.append(FinishedRun(name, folder, content, provenance, history))
    return runs


def check_different(folders: Sequence[Path]) -> None:
    """Raise `ZssError` naming a folder that is given twice, in whatever spelling."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (other := seen.get(folder.resolve())) is not None:
            spelling = f" (also as {other})" if other != folder else ""
            raise ZssError(f"{folder} is given twice{spelling}; name everything once")
        seen[folder.resolve()] = folder


def read_config(folder: Path) -> dict[str, Any]:
    """The config.yaml of a run; empty where there is none.

    Raises:
        ZssError: it is no yaml, or not that of a run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    _, content = read_yaml(path, "the config of a run")
    if not isinstance(content, dict):
        raise ZssError(
            f"{path} is not the config of a run, it holds {reprlib.repr(content)}; put back the "
            "one that the run was started with"
        )
    return content


def custom_descriptions(folder: Path) -> list[Path]:
    """The files of ``DATASETS.CUSTOM`` that a run used, by the config.yaml in its folder.

    Raises:
        ZssError: config.yaml cannot be read.
    """
    datasets = read_config(folder).get("DATASETS")
    named = datasets.get("CUSTOM") if isinstance(datasets, dict) else None
    return [found_from(folder, Path(str(name))) for name in named or ()]


def found_from(folder: Path, path: Path) -> Path:
    """Where a file lies that a run named by a relative path; one that is nowhere stays as it is.

    The path started where the training did: above the run's folder, as a rule, or else here.
    """
    starts = (*folder.resolve().parents, Path())
    return next((start / path for start in starts if (start / path).is_file()), path)


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
