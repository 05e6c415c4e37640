"""The tables of a sweep's folder: single runs as CSV, means and standard deviations as Markdown.

Both hold all finished runs of the folder, also those of earlier sweeps into it, and say which have
failed; these enter no mean.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tabulate import tabulate

from zss_d2.analysis.run_folder import RunFolder
from zss_d2.analysis.sweep.plan import Run
from zss_d2.analysis.sweep.settings import described, different_settings
from zss_d2.config.rules import below
from zss_d2.errors import ZssError
from zss_d2.evaluation.shape import metrics as shape
from zss_d2.utils.text import markdown_text, one_line, shorten
from zss_d2.utils.writing import write_atomic

Row: TypeAlias = dict[str, Any]
METRICS = ("pAcc", "mIoU-S", "mIoU-U", "hIoU", "mIoU-U-things", "mIoU-U-stuff")
SHAPES = tuple(f"{name}{group}" for group in ("-S", "-U") for name in shape.METRICS)
PROVENANCE = ("commit", "uncommitted_changes", "detectron2", "torch", "device", "config_sha256")
IDENTITY = ("varied", "settings_sha256", "common_sha256", "dataset", "folder")
COLUMNS = ("method", "data", "variant", "seed", *METRICS, *PROVENANCE, "version", *IDENTITY)
COLUMNS += ("failed", *SHAPES)
# Letters of the reason in the table.
REASON_WIDTH = 160


def collect(runs: Sequence[Run], failed: Mapping[str, str] | None = None) -> list[Row]:
    """One row per run and test set: what it is, its metrics and its provenance.

    Args:
        failed: place of a run -> why it has failed; such a run has no metrics.
    """
    rows = []
    for run in runs:
        reason = (failed or {}).get(run.place, "")
        if reason:
            results = dict.fromkeys(run.config().DATASETS.TEST or ("",), {})
        else:
            results = RunFolder(run.folder).results
        for dataset in results:
            if dataset == "provenance":
                continue
            identity = {
                "method": run.method,
                "data": run.data(dataset),
                "variant": run.variant,
                "seed": run.seed,
                "varied": run.varied,
                "settings_sha256": run.settings,
                "common_sha256": run.common,
                "dataset": dataset,
                "folder": run.place,
                "failed": shorten(one_line(reason), REASON_WIDTH),
            }
            rows.append(identity | _numbers(results, dataset))
    return rows


def _numbers(results: Mapping[str, Mapping[str, Any]], dataset: str) -> Row:
    metrics, provenance = results[dataset], results.get("provenance", {})
    return {name: metrics.get(name) for name in (*METRICS, *SHAPES)} | {
        name: provenance.get(name) for name in (*PROVENANCE, "version")
    }


def earlier_rows(output: Path) -> tuple[list[Row], list[str]]:
    """Rows of ``table.csv`` whose runs are still there, and the folders of those that are not.

    Raises:
        ZssError: the table is not of this kind.
    """
    path = output / "table.csv"
    if not path.is_file():
        return [], []
    try:
        table = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        complete = all(row[name] is not None for row in table for name in (*IDENTITY, "failed"))
        seeds = [int(row["seed"]) for row in table]
    except (OSError, ValueError, KeyError, csv.Error):
        complete = False
    if not complete:
        raise ZssError(
            f"{path} is no table of this version; rename it, and give the commands of earlier "
            "sweeps again to get their rows back (finished runs are not repeated)"
        )
    rows: list[Row] = []
    gone = []
    for row, seed in zip(table, seeds, strict=True):
        known = {**{name: row.get(name) for name in COLUMNS}, "seed": seed}
        folder = output / row["folder"]
        if row["failed"]:
            results = {row["dataset"]: {}} if folder.is_dir() else {}
        else:
            results = _results(folder, row["config_sha256"])
        if row["dataset"] in results:
            rows.append(known | _numbers(results, row["dataset"]))
        else:
            gone.append(row["folder"])
    return rows, list(dict.fromkeys(gone))


def _results(folder: Path, config_sha256: str) -> Mapping[str, Any]:
    """Content of results.json; empty if it is of no or another configuration."""
    try:
        results = RunFolder(folder).results
    except ZssError:
        return {}
    return results if results["provenance"]["config_sha256"] == config_sha256 else {}


def check_settings(runs: Sequence[Run], output: Path) -> None:
    """Raise `ZssError` where runs would be averaged with earlier ones of other settings, or twice.

    One run is twice there where a later command spells a value in another way.
    """
    rows = [row for row in earlier_rows(output)[0] if not row["failed"]]
    earlier = {(row["method"], row["varied"], row["variant"]): row for row in rows}
    alike = {(row["method"], row["varied"]): row for row in rows}
    same = {
        (row["method"], row["varied"], int(row["seed"]), row["settings_sha256"]): row
        for row in rows
    }
    for run in runs:
        row = same.get((run.method, run.varied, run.seed, run.settings))
        if row is not None and (output / row["folder"]).resolve() != run.folder.resolve():
            raise ZssError(
                f"{run} has the settings and the seed of {output / row['folder']}, which is in the "
                "table already; leave it out"
            )
        row = earlier.get((run.method, run.varied, run.variant))
        if row is not None and row["settings_sha256"] != run.settings:
            raise ZssError(_of_other_settings(run, output / row["folder"]))
        row = alike.get((run.method, run.varied))
        if row is not None and row["common_sha256"] != run.common:
            raise ZssError(_of_other_settings(run, output / row["folder"]))


def _of_other_settings(run: Run, folder: Path) -> str:
    """The message; it names the keys as far as the other run's config.yaml tells them."""
    earlier = RunFolder(folder)
    changes = different_settings(earlier, run.config())
    expected = [run.varied, "SEED", *(["DATASETS"] if run.view else [])]
    changes = {key: pair for key, pair in changes.items() if not below(key, expected)}
    keys = f": {described(changes)}" if changes and earlier.settings else ""
    return (
        f"{run} would be averaged with {folder}, which has other settings{keys}; give another "
        "--output"
    )


def write_tables(rows: Sequence[Row], output: Path) -> str:
    """Write ``table.csv`` (a row per run) and ``table.md``; returns the Markdown.

    Args:
        rows: of this sweep; those of earlier ones are in the folder's ``table.csv``.
    """
    earlier, gone = earlier_rows(output)
    merged = {(row["folder"], row["dataset"]): row for row in (*earlier, *rows)}
    everything = list(merged.values())
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS)
    writer.writeheader()
    writer.writerows(everything)
    write_atomic(output / "table.csv", lambda path: path.write_text(text.getvalue(), "utf-8"))

    complete = [row for row in everything if not row["failed"]]
    parts = [summarise(complete, per_variant=False) if complete else "No run is finished."]
    if len(_distinct(row["variant"] for row in complete)) > 1:
        parts.append(summarise(complete, per_variant=True))
    if any(row[name] is not None for row in complete for name in SHAPES):
        several = len(_distinct(row["variant"] for row in complete)) > 1
        parts.append(summarise(complete, per_variant=several, metrics=SHAPES))
        parts.append(shape.LEGEND)
    if complete:
        parts.append(_footer(complete))
    if failures := {row["folder"]: row["failed"] for row in everything if row["failed"]}:
        parts.append(_failed(failures))
    folders = {row["folder"] for row in everything}
    if others := len(folders - {row["folder"] for row in rows}):
        parts.append(f"{others} of {len(folders)} runs are of earlier sweeps into this folder.")
    if gone:
        names = ", ".join(map(markdown_text, gone))
        parts.append(f"No longer in the table, as they are gone or changed: {names}.")
    markdown = "\n\n".join(parts) + "\n"
    write_atomic(output / "table.md", lambda path: path.write_text(markdown, "utf-8"))
    return markdown


def summarise(rows: Sequence[Row], per_variant: bool, metrics: Sequence[str] = METRICS) -> str:
    """Markdown: mean ± standard deviation (of the sample) per method and data set, in percent.

    Variants of different keys are never averaged. A column that no row has is left out.
    """
    names = ["method", "data"]
    if len(_distinct(row["varied"] for row in rows)) > 1:
        names.append("varied")
    names += ["variant"] * per_variant
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    columns = [name for name in metrics if any(row[name] is not None for row in rows)]
    table = [
        [
            *map(markdown_text, key),
            len(group),
            *(_spread([row[name] for row in group], shape.digits(name)) for name in columns),
        ]
        for key, group in groups.items()
    ]
    headers = [*names, "runs", *columns]
    return tabulate(table, headers=headers, tablefmt="github", disable_numparse=True)


def _failed(failures: Mapping[str, str]) -> str:
    cells = [[markdown_text(folder), markdown_text(why)] for folder, why in failures.items()]
    table = tabulate(cells, ["run", "why"], tablefmt="github", disable_numparse=True)
    return f"Failed, and in no mean:\n\n{table}"


def _spread(values: Sequence[float | None], digits: int) -> str:
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return "-"
    text = f"{statistics.fmean(numbers):.{digits}f}"
    if len(numbers) > 1:
        text += f" ± {statistics.stdev(numbers):.{digits}f}"
    # Undefined values, such as those of groups without ground truth.
    return text if len(numbers) == len(values) else f"{text} ({len(numbers)} of {len(values)})"


def _footer(rows: Sequence[Row]) -> str:
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return (
        f"Percent; mean ± sample standard deviation over runs. Seeds {seeds}; commit "
        f"{', '.join(sorted(set(map(_code, rows))))}; Detectron2 "
        f"{_all(rows, 'detectron2')}, torch {_all(rows, 'torch')}, {_all(rows, 'device')}. Single "
        "runs: table.csv."
    )


def _code(row: Row) -> str:
    if row["commit"] is None:
        return f"unknown (version {row['version'] or 'unknown'})"
    return f"{row['commit']}{' with uncommitted changes' * bool(row['uncommitted_changes'])}"


def _all(rows: Sequence[Row], key: str) -> str:
    return " / ".join(one_line(value) for value in _distinct(row[key] for row in rows))


def _distinct(values: Iterable[object]) -> list[object]:
    return list(dict.fromkeys(values))
