"""Run configs over seeds and variants, and print one table with mean and standard deviation.

    zss sweep configs/maskclip_mini.yaml configs/ldvc_mini.yaml \\
        --seeds 0 1 2 --vary MODEL.CLIP.PRETRAINED seed0 seed1 --output output/sweep

Every run has a folder of its own below the output folder. A run that is finished under the same
configuration is not repeated, one that was interrupted goes on from its last checkpoint; so the
same command can be given again at any time. ``--opts KEY VALUE`` apply to all runs. The table holds
all finished runs of the output folder, those of earlier commands too.

A run that fails does not keep the others from running. It is named in the table, with the reason,
and the exit status is 1; the same command tries it again. ``--jobs N`` runs N at once, each on
GPUs (of CUDA_VISIBLE_DEVICES, if set) and CPU cores of its own. SIGTERM and Ctrl-C let running
trainings save a checkpoint; a second one kills them.

To choose between settings without looking at the unseen classes that are reported, run them on
views in which seen classes are held out (datasets/README.md, "Choosing settings"); the first table
then has the mean over the views:

    zss sweep configs/ldvc_mini.yaml configs/zegclip_mini.yaml \\
        --views datasets/mini_heldout*.yaml --opts DATASETS.TEST '("zss_mini_dev",)'
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from zss_d2.analysis.sweep import run as sweep_run
from zss_d2.analysis.sweep.plan import Run, plan
from zss_d2.analysis.sweep.run import LOG, Execution
from zss_d2.analysis.sweep.slots import share_out
from zss_d2.analysis.sweep.state import finished
from zss_d2.analysis.sweep.table import check_settings, collect, write_tables
from zss_d2.errors import ZssError, command
from zss_d2.utils.command_line import MAX_SEED, Parser, check_output, whole


def execute(runs: Sequence[Run], jobs: int, num_gpus: int) -> Execution:
    """Execute the runs, none of which is finished, ``jobs`` at once.

    Raises:
        ZssError: train_net.py is not there, or this machine has too little for that many.
    """
    if runs and not sweep_run.TRAIN_NET.is_file():
        raise ZssError(
            f"{sweep_run.TRAIN_NET} does not exist; run sweeps from a checkout of the project"
        )
    slots = []
    if runs:
        devices = {run.config().MODEL.DEVICE for run in runs}
        slots = share_out(min(jobs, len(runs)), num_gpus, devices)
    if len(slots) > 1:
        print(f"{len(slots)} runs at once: {'; '.join(map(str, slots))}", flush=True)
    execution = Execution(runs, slots, num_gpus)
    execution.run()
    return execution


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="yaml files; one row each")
    parser.add_argument("--seeds", nargs="+", type=whole(0, MAX_SEED), default=[0], metavar="N")
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
    parser.add_argument("--jobs", type=whole(1), default=1, metavar="N", help="runs at once")
    parser.add_argument(
        "--num-gpus", type=whole(1), default=1, metavar="N", help="per run; processes on a CPU"
    )
    parser.add_opts()
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.vary is not None and len(args.vary) < 2:
        parser.error("--vary needs a key and at least one value")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    check_output(args.output, folder=True)
    runs = plan(args)
    waiting = [run for run in runs if not finished(run)]
    check_settings(runs, args.output)
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are already finished", flush=True)
    execution = execute(waiting, args.jobs, args.num_gpus)

    failed = {place: reason for place, reason in execution.ended.items() if reason}
    over = [run for run in runs if run not in waiting or run.place in execution.ended]
    if over:
        markdown = write_tables(collect(over, failed), args.output)
        print(f"\n{markdown}\nwritten to {args.output / 'table.md'}", flush=True)
    if execution.signum is not None:
        print(
            f"stopped by {signal.Signals(execution.signum).name}: {len(over) - len(failed)} of "
            f"{len(runs)} runs are finished; the same command goes on",
            file=sys.stderr,
        )
        return 128 + execution.signum
    if failed:
        logs = ", ".join(str(args.output / place / LOG) for place in failed)
        print(
            f"error: {len(failed)} of {len(runs)} runs failed, see {logs}; the same command tries "
            "them again",
            file=sys.stderr,
        )
        return 1
    return 0
