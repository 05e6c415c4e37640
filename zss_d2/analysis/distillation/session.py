"""The whole of ``zss distillation``: runs and their checkpoints -> table, curves, files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from zss_d2.analysis.distillation.measure import MEASURES, Point, measure_run
from zss_d2.analysis.distillation.picture import draw
from zss_d2.analysis.names import check_different, short_names
from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.analysis.over_runs.statistics import Mean, correlation, mean_over_runs
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.drawing.figures import encode
from zss_d2.utils.text import markdown_text
from zss_d2.utils.writing import write_atomic

# Digits behind the point.
COSINES = ("margin", "own", "nearest seen")
# What is held against mIoU-U over runs.
AGAINST = ("retrieval", "margin", "purity", "coverage", "own", "own nearest")

Points = Mapping[int, Point]


def run_distillation(
    folders: Sequence[Path],
    output: Path,
    *,
    images: int,
    over: Sequence[str] = (),
    opts: Sequence[str] = (),
) -> str:
    """Measure all checkpoints of runs; writes ``distillation.json``, ``.md`` and ``.png``.

    Args:
        images: of the training set, with an unseen class.
        over: keys beside the seed in which the runs of a group may differ.
        opts: config keys and values, in turn.

    Returns:
        the table and the correlations, as Markdown.

    Raises:
        ZssError: as `measure_run` and `replicates`; a folder is no run or given twice.
    """
    check_different(folders)
    runs = [RunFolder(folder) for folder in folders]
    configs = [run.config(opts) for run in runs]
    groups = replicates(folders, configs, over)
    found = [measure_run(run, cfg, images) for run, cfg in zip(runs, configs, strict=True)]
    curves = {name: _means([found[i] for i in ids]) for name, ids in groups.items()}
    lines = correlations(found)
    text = f"{_table(curves, groups)}\n\n{_explained()}\n" + "".join(f"\n{x}\n" for x in lines)
    content: dict[str, Any] = {
        "images": images,
        "runs": {
            name: {str(iteration): _plain(point) for iteration, point in points.items()}
            for name, points in zip(short_names(folders), found, strict=True)
        },
        "groups": {
            name: {
                str(iteration): {x: _plain(mean._asdict()) for x, mean in means.items()}
                for iteration, means in curve.items()
            }
            for name, curve in curves.items()
        },
        "correlations with mIoU-U": lines,
    }
    written = json.dumps(content, indent=1, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "distillation.json", lambda path: path.write_text(written, "utf-8"))
    write_atomic(output / "distillation.md", lambda path: path.write_text(text, "utf-8"))
    picture = encode(draw(curves))
    write_atomic(output / "distillation.png", lambda path: path.write_bytes(picture))
    return text


def _means(runs: Sequence[Points]) -> dict[int, dict[str, Mean]]:
    """Over the runs that have a checkpoint of an iteration."""
    iterations = sorted({iteration for points in runs for iteration in points})
    return {
        iteration: {
            name: mean_over_runs([x[iteration][name] for x in runs if iteration in x])
            for name in MEASURES
        }
        for iteration in iterations
    }


def correlations(runs: Sequence[Points]) -> list[str]:
    """How measures go with mIoU-U over the last checkpoints of runs; empty below three runs."""
    last = [points[max(points)] for points in runs]
    lines = []
    for name in AGAINST:
        found = correlation([x[name] for x in last], [x["mIoU-U"] for x in last])
        if not math.isnan(found.pearson):
            lines.append(
                f"{name} and mIoU-U over {found.runs} runs: Pearson {found.pearson:+.2f}, "
                f"Spearman {found.spearman:+.2f}"
            )
    return lines


def _table(curves: Mapping[str, Mapping[int, Mapping[str, Mean]]], groups: Mapping) -> str:
    rows = [
        [markdown_text(name), len(groups[name]), iteration]
        + [means[x].text(3 if x in COSINES else 1) for x in MEASURES]
        for name, curve in curves.items()
        for iteration, means in curve.items()
    ]
    return tabulate(rows, ["run", "runs", "iterations", *MEASURES], "github", disable_numparse=True)


def _explained() -> str:
    return "\n".join(f"- {name}: {text}" for name, text in MEASURES.items())


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}
