"""Tables of the measures: a line per group of runs and stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from zss_d2.analysis.drift.measures import QUERIES, TOKENS
from zss_d2.analysis.over_runs.statistics import Mean, mean_over_runs
from zss_d2.utils.text import markdown_text

# Columns of the two tables, each once for seen and once for unseen classes.
TOKEN_COLUMNS = ("own", "best other", "own nearest", "within", "within / between")
QUERY_COLUMNS = tuple(QUERIES)
TITLES = {
    "tokens": "Dense tokens and the class embeddings that they are compared with",
    "queries": "Class embeddings that entered the decoder (t_hat), and what became of them",
}
EXPLAINED = {**TOKENS, **QUERIES, "within / between": "ratio of the two means over the classes"}

Means = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def summarise(runs: Sequence[Means]) -> dict[str, dict[str, dict[str, dict[str, Mean]]]]:
    """Means and intervals over runs of one kind: part -> stage -> group -> measure."""
    return {
        part: {
            stage: {
                group: {
                    name: mean_over_runs([run[part][stage][group][name] for run in runs])
                    for name in measures
                }
                for group, measures in groups.items()
            }
            for stage, groups in stages.items()
        }
        for part, stages in runs[0].items()
    }


def tables(groups: Mapping[str, Sequence[Means]]) -> str:
    """Markdown; seen / unseen in one cell, with 95 % intervals where a group has several runs."""
    summaries = {name: summarise(runs) for name, runs in groups.items()}
    parts = []
    for part, columns in (("tokens", TOKEN_COLUMNS), ("queries", QUERY_COLUMNS)):
        rows = [
            [markdown_text(name), len(groups[name]), stage]
            + [_cell(means, column) for column in columns]
            for name, summary in summaries.items()
            for stage, means in summary[part].items()
        ]
        if rows:
            table = tabulate(
                rows, ["run", "runs", "stage", *columns], "github", disable_numparse=True
            )
            legend = "".join(f"- {name}: {EXPLAINED[name]}\n" for name in columns)
            first = next(iter(next(iter(summaries.values()))["tokens"].values()))
            parts.append(f"{TITLES[part]}, {' / '.join(first)}:\n\n{table}\n\n{legend}")
    return "\n".join(parts)


def _cell(means: Mapping[str, Mapping[str, Mean]], measure: str) -> str:
    return " / ".join(group[measure].text(3) for group in means.values())


def content(groups: Mapping[str, Sequence[Means]]) -> dict[str, Any]:
    """The summaries for JSON: value, half of the 95 % interval, number of runs."""
    return {
        name: {
            part: {
                stage: {
                    group: {x: _fields(mean) for x, mean in measures.items()}
                    for group, measures in stages.items()
                }
                for stage, stages in parts.items()
            }
            for part, parts in summarise(runs).items()
        }
        for name, runs in groups.items()
    }


def _fields(mean: Mean) -> dict[str, float | int | None]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in mean._asdict().items()
    }
