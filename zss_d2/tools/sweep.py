"""Run configs over seeds and variants, and print one table with mean and standard deviation.

    python -m zss_d2.tools.sweep configs/maskclip_mini.yaml configs/ldvc_mini.yaml \\
        --seeds 0 1 2 --vary MODEL.CLIP.PRETRAINED seed0 seed1 --output output/sweep

Every run has a folder of its own below the output folder. A run that is finished under the same
configuration is not repeated, one that was interrupted goes on from its last checkpoint; so the
same command can be given again at any time. ``--opts KEY VALUE`` apply to all runs.

To choose between settings without looking at the unseen classes that are reported, run them on
views in which seen classes are held out (datasets/README.md, "Choosing settings"); the first table
then has the mean over the views:

    python -m zss_d2.tools.sweep configs/ldvc_mini.yaml configs/zegclip_mini.yaml \\
        --views datasets/mini_heldout*.yaml --opts DATASETS.TEST '("zss_mini_dev",)'
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from tabulate import tabulate

import zss_d2
from zss_d2.data.custom import Custom, load_custom
from zss_d2.data.files import write_atomic
from zss_d2.engine import load_config
from zss_d2.errors import ZssError, command
from zss_d2.evaluation import read_results
from zss_d2.evaluation.results import config_hash

TRAIN_NET = Path(zss_d2.__file__).resolve().parent.parent / "train_net.py"
# Lines of Detectron2's log that tell how far a run is.
PROGRESS = ("eta: ", "Inference done")
COLUMNS = ("pAcc", "mIoU-S", "mIoU-U", "hIoU", "mIoU-U-things", "mIoU-U-stuff")


@dataclass(frozen=True)
class Run:
    """One training (or evaluation) and the folder it writes to."""

    config_file: str
    variant: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path
    view: Custom | None = None

    @property
    def method(self) -> str:
        return Path(self.config_file).stem

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, self.variant, f"seed {self.seed}")))

    def config(self) -> CfgNode:
        opts = [*self.overrides, "SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)]
        return load_config(argparse.Namespace(config_file=self.config_file, opts=opts))


def plan(args: argparse.Namespace) -> list[Run]:
    """Every config on every view with every variant and seed, in that order.

    Raises ZssError for a bad view, or one of other data than a config's.
    """
    key, *values = args.vary or ("", "")
    runs = []
    for config_file, path, value in itertools.product(args.configs, args.views or [""], values):
        view = load_custom(path) if path else None
        name = view.benchmark.name if view else ""
        overrides = [*args.opts, *((key, value) if value else ())]
        if view is not None:
            overrides += view_overrides(config_file, overrides, path, view)
        variant = " ".join(filter(None, (value, name)))
        folder = args.output / Path(config_file).stem / name / value.replace("/", "_")
        runs += [
            Run(config_file, variant, seed, tuple(overrides), folder / f"seed{seed}", view)
            for seed in args.seeds
        ]
    return runs


def view_overrides(config_file: str, opts: Sequence[str], path: str, view: Custom) -> list[str]:
    """Return what makes the config train and test on the view instead; raises ZssError."""
    datasets = load_config(argparse.Namespace(config_file=config_file, opts=[*opts])).DATASETS
    overrides = ["DATASETS.CUSTOM", repr((*datasets.CUSTOM, path))]
    for key in ("TRAIN", "TEST"):
        overrides += [f"DATASETS.{key}", repr(tuple(map(view.dataset_shown, datasets[key])))]
    return overrides


def finished(run: Run, cfg: CfgNode) -> bool:
    """Whether the folder holds the final results of exactly this configuration.

    Raises:
        ZssError: the folder holds a run of another configuration.
    """
    path = run.folder / "results.json"
    if not path.is_file():
        return False
    provenance = read_results(path)["provenance"]
    if provenance["config_sha256"] != config_hash(cfg):
        raise ZssError(
            f"{run.folder} holds a run of another configuration; give another --output or remove it"
        )
    return provenance["iteration"] in (None, cfg.SOLVER.MAX_ITER)


def execute(run: Run, num_gpus: int) -> None:
    """Run ``train_net.py`` in a process of its own.

    Its output goes to ``console.txt`` in the run's folder, its progress lines also to the screen.

    Raises:
        ZssError: it failed; names the log.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / "console.txt"
    command = [sys.executable, str(TRAIN_NET), "--config-file", run.config_file, "--resume"]
    command += ["--num-gpus", str(num_gpus), "--dist-url", "auto", *run.overrides]
    command += ["SEED", str(run.seed), "OUTPUT_DIR", str(run.folder)]
    line = "no output"
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            if any(mark in line for mark in PROGRESS):
                print(f"    {line.rsplit(']: ', 1)[-1].strip()}", flush=True)
    if process.returncode:
        raise ZssError(f"{run} failed: {line.strip().removeprefix('error: ')} (see {log})")


def run_all(runs: Sequence[Run], num_gpus: int) -> None:
    """Execute what is not finished, saying how far it is and how long the rest may take."""
    waiting = [run for run in runs if not finished(run, run.config())]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are already finished", flush=True)
    start = time.monotonic()
    for done, run in enumerate(waiting):
        rest = ""
        if done:
            left = (time.monotonic() - start) / done * (len(waiting) - done)
            rest = f", about {left / 60:.0f} min left"
        print(f"[{done + 1}/{len(waiting)}] {run}{rest}: {run.folder}", flush=True)
        execute(run, num_gpus)


def collect(runs: Sequence[Run]) -> list[dict[str, object]]:
    """One row per run and test set: what it is, its metrics and its provenance."""
    rows = []
    for run in runs:
        results = read_results(run.folder / "results.json")
        provenance = results.pop("provenance")
        for dataset, metrics in results.items():
            if (view := run.view) is not None:
                # One name for all views, so that the table averages over them.
                split = dataset.removeprefix(f"zss_{view.benchmark.name}_")
                dataset = f"views of zss_{view.base}_{split}"
            rows.append(
                {"method": run.method, "data": dataset, "variant": run.variant, "seed": run.seed}
                | {name: metrics.get(name) for name in COLUMNS}
                | {
                    name: provenance[name]
                    for name in ("commit", "uncommitted_changes", "detectron2", "torch", "device")
                }
                | {"config_sha256": provenance["config_sha256"]}
            )
    return rows


def summarise(rows: Sequence[Mapping[str, object]], per_variant: bool) -> str:
    """Markdown: mean ± standard deviation (of the sample) per method and data set, in percent."""
    groups: dict[tuple, list[Mapping[str, object]]] = {}
    for row in rows:
        key = (row["method"], row["data"], *((row["variant"],) if per_variant else ()))
        groups.setdefault(key, []).append(row)
    columns = [name for name in COLUMNS if any(row[name] is not None for row in rows)]
    table = [
        [*key, len(group), *(_spread([row[name] for row in group]) for name in columns)]
        for key, group in groups.items()
    ]
    headers = ["method", "data", *(["variant"] if per_variant else []), "runs", *columns]
    return tabulate(table, headers=headers, tablefmt="github", disable_numparse=True)


def _spread(values: Sequence[object]) -> str:
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return "-"
    mean = f"{statistics.fmean(numbers):.1f}"
    return f"{mean} ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else mean


def write_tables(rows: Sequence[Mapping[str, object]], output: Path) -> str:
    """Write ``table.csv`` (a row per run) and ``table.md``; returns the Markdown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(output / "table.csv", lambda path: path.write_text(text.getvalue()))

    parts = [summarise(rows, per_variant=False)]
    if len({row["variant"] for row in rows}) > 1:
        parts.append(summarise(rows, per_variant=True))
    commits = sorted({f"{row['commit']}{'+' * bool(row['uncommitted_changes'])}" for row in rows})
    first = rows[0]
    seeds = ", ".join(str(seed) for seed in sorted({int(str(row["seed"])) for row in rows}))
    parts.append(
        f"Percent; mean ± sample standard deviation over runs. Seeds {seeds}; commit "
        f"{', '.join(commits)} (+: uncommitted changes); Detectron2 {first['detectron2']}, torch "
        f"{first['torch']}, {first['device']}. Single runs: table.csv."
    )
    markdown = "\n\n".join(parts) + "\n"
    write_atomic(output / "table.md", lambda path: path.write_text(markdown))
    return markdown


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="yaml files; one row each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument(
        "--vary",
        nargs="+",
        metavar=("KEY", "VALUE"),
        help="a config key and the values to run each config with",
    )
    parser.add_argument(
        "--views", nargs="+", default=[], metavar="YAML", help="held-out views to run on instead"
    )
    parser.add_argument("--output", type=Path, default=Path("output/sweep"), metavar="DIR")
    parser.add_argument("--num-gpus", type=int, default=1, help="per run; processes on a CPU")
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides for all runs"
    )
    args = parser.parse_args(argv)
    if args.vary is not None and len(args.vary) < 2:
        parser.error("--vary needs a key and at least one value")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    runs = plan(args)
    run_all(runs, args.num_gpus)
    rows = collect(runs)
    print(f"\n{write_tables(rows, args.output)}\nwritten to {args.output / 'table.md'}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
