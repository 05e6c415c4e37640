"""Run configs over seeds and variants, and print one table with mean and standard deviation.

    python -m zss_d2.tools.sweep configs/maskclip_mini.yaml configs/ldvc_mini.yaml \\
        --seeds 0 1 2 --vary MODEL.CLIP.PRETRAINED seed0 seed1 --output output/sweep

Every run has a folder of its own below the output folder. A run that is finished under the same
configuration is not repeated, one that was interrupted goes on from its last checkpoint; so the
same command can be given again at any time. ``--opts KEY VALUE`` apply to all runs. The table holds
all finished runs of the output folder, those of earlier commands too.

To choose between settings without looking at the unseen classes that are reported, run them on
views in which seen classes are held out (datasets/README.md, "Choosing settings"); the first table
then has the mean over the views:

    python -m zss_d2.tools.sweep configs/ldvc_mini.yaml configs/zegclip_mini.yaml \\
        --views datasets/mini_heldout*.yaml --opts DATASETS.TEST '("zss_mini_dev",)'
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode

import zss_d2
from zss_d2.errors import ZssError, command
from zss_d2.evaluation import read_results
from zss_d2.evaluation.results import config_hash
from zss_d2.tools.sweep_plan import Run, plan
from zss_d2.tools.sweep_table import check_settings, collect, write_tables

TRAIN_NET = Path(zss_d2.__file__).resolve().parent.parent / "train_net.py"
# Lines of Detectron2's log that tell how far a run is.
PROGRESS = ("eta: ", "Inference done")


def finished(run: Run, cfg: CfgNode) -> bool:
    """Whether the folder holds the final results of exactly this configuration.

    Raises:
        ZssError: the folder holds a run of another configuration, finished or not.
    """
    path = run.folder / "results.json"
    provenance = read_results(path)["provenance"] if path.is_file() else {}
    begun = run.folder / "config.yaml"
    if provenance:
        same = provenance["config_sha256"] == config_hash(cfg)
    else:
        # An interrupted run would go on under these settings.
        same = not begun.is_file() or yaml.safe_load(begun.read_text("utf-8")) == yaml.safe_load(
            cfg.dump()
        )
    if not same:
        raise ZssError(
            f"{run.folder} holds a run of another configuration; give another --output or rename it"
        )
    return bool(provenance) and provenance["iteration"] in (None, cfg.SOLVER.MAX_ITER)


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
    if waiting and not TRAIN_NET.is_file():
        raise ZssError(f"{TRAIN_NET} does not exist; run sweeps from a checkout of the project")
    start = time.monotonic()
    for done, run in enumerate(waiting):
        rest = ""
        if done:
            left = (time.monotonic() - start) / done * (len(waiting) - done)
            rest = f", about {left / 60:.0f} min left"
        print(f"[{done + 1}/{len(waiting)}] {run}{rest}: {run.folder}", flush=True)
        execute(run, num_gpus)


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
    check_settings(runs, args.output)
    run_all(runs, args.num_gpus)
    markdown = write_tables(collect(runs), args.output)
    print(f"\n{markdown}\nwritten to {args.output / 'table.md'}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
