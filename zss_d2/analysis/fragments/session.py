"""The whole of ``zss fragments``: runs -> measures, tables, files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from tabulate import tabulate

from zss_d2.analysis.fragments.measure import Measured, measure
from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.analysis.over_runs.statistics import Mean, mean_over_runs
from zss_d2.analysis.run_folder import finished_runs
from zss_d2.config.values import value_of
from zss_d2.evaluation.shape.metrics import GROUPS, LEGEND, METRICS, digits
from zss_d2.utils.text import markdown_text
from zss_d2.utils.writing import write_atomic

Means = Mapping[str, Mapping[str, Mean]]  # group of runs -> metric -> mean


def run_fragments(folders: Sequence[Path], output: Path, over: Sequence[str] = ()) -> str:
    """Measure finished runs on every set that they were tested on.

    Writes ``fragments.json`` (single runs and classes too) and ``fragments.md``.

    Args:
        over: keys beside the seed in which the runs of a group may differ.

    Returns:
        the tables, as Markdown.

    Raises:
        ZssError: as `finished_runs`, `replicates` and `measure`.
    """
    runs = finished_runs(folders)
    configs = [run.config() for run in runs]
    groups = replicates(folders, configs, over)
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    # Everything is read before images are.
    _ = [run.counts(name) for run in runs for name in run.metrics]
    parts, content = [], {}
    for dataset in names:
        found = {
            index: measure(run, configs[index], dataset)
            for index, run in enumerate(runs)
            if dataset in run.metrics
        }
        here = {name: [i for i in ids if i in found] for name, ids in groups.items()}
        here = {name: ids for name, ids in here.items() if ids}
        means = {
            name: {key: mean_over_runs(values) for key, values in _columns(found, ids).items()}
            for name, ids in here.items()
        }
        differences = paired_differences(found, here, configs, over)
        parts.append(f"### {markdown_text(dataset)}\n\n{table(means)}")
        if differences:
            first = markdown_text(next(iter(here)))
            parts.append(
                f"Difference to {first}, of runs with the same seed{_keys(over)}:\n\n"
                f"{table(differences, sign='+')}"
            )
        content[dataset] = {
            "groups": {name: _fields(x) for name, x in means.items()},
            "differences": {name: _fields(x) for name, x in differences.items()},
            "runs": {runs[i].name: _of_run(folders[i], x) for i, x in found.items()},
        }
    parts.append(
        "Mean over runs ± half of the 95 % interval of Student's t, where there are several. "
        f"{LEGEND}"
    )
    text = "\n\n".join(parts) + "\n"
    written = json.dumps(content, indent=1, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "fragments.json", lambda path: path.write_text(written, "utf-8"))
    write_atomic(output / "fragments.md", lambda path: path.write_text(text, "utf-8"))
    return text


def paired_differences(
    found: Mapping[int, Measured],
    groups: Mapping[str, Sequence[int]],
    configs: Sequence[CfgNode],
    over: Sequence[str] = (),
) -> dict[str, dict[str, Mean]]:
    """Of every group but the first: its runs less those of the first with the same seed.

    Args:
        found: index of a run -> its measures.
        groups: name -> indices of its runs.
        configs: of all runs.
        over: keys beside the seed that must be the same in a pair.

    Returns:
        nothing for a group without a pair.
    """
    first, *others = groups.values()

    def by_key(ids: Sequence[int]) -> dict[tuple, int]:
        return {tuple(str(value_of(configs[i], k)) for k in ("SEED", *over)): i for i in ids}

    base = by_key(first)
    result = {}
    for name, ids in zip(list(groups)[1:], others, strict=True):
        pairs = [(i, base[key]) for key, i in by_key(ids).items() if key in base]
        if pairs:
            result[name] = {
                key: mean_over_runs(
                    [found[i].metrics[key] - found[j].metrics[key] for i, j in pairs]
                )
                for key in found[ids[0]].metrics
            }
    return result


def table(means: Means, sign: str = "") -> str:
    """Markdown: a line per group of runs and of classes.

    Args:
        sign: "+" has positive means begin with it.
    """
    rows = []
    for name, metrics in means.items():
        for group, suffix in GROUPS.items():
            cells = [metrics[f"{key}{suffix}"] for key in METRICS]
            if number := max(mean.runs for mean in cells):
                texts = (mean.text(digits(key)) for key, mean in zip(METRICS, cells, strict=True))
                shown = [
                    f"{sign * (mean.value > 0)}{text}"
                    for mean, text in zip(cells, texts, strict=True)
                ]
                rows.append([markdown_text(name), number, group, *shown])
    return tabulate(rows, ["run", "runs", "classes", *METRICS], "github", disable_numparse=True)


def _columns(found: Mapping[int, Measured], ids: Sequence[int]) -> dict[str, list[float]]:
    return {key: [found[i].metrics[key] for i in ids] for key in found[ids[0]].metrics}


def _keys(over: Sequence[str]) -> str:
    return "".join(f" and {key}" for key in over)


def _of_run(folder: Path, x: Measured) -> dict[str, Any]:
    return {
        "folder": folder.as_posix(),
        "from": x.source,
        "metrics": _numbers(x.metrics),
        "classes": {name: _numbers(values) for name, values in x.classes.items()},
    }


def _fields(means: Mapping[str, Mean]) -> dict[str, Any]:
    return {key: _numbers(mean._asdict()) for key, mean in means.items()}


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}
