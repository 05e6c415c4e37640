"""One call of ``zss sweep``: what is missing is run, and the tables are written."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from zss_d2.analysis.sweep import runner
from zss_d2.analysis.sweep.plan import Run, plan_runs
from zss_d2.analysis.sweep.runner import LOG, Execution
from zss_d2.analysis.sweep.slots import share_out
from zss_d2.analysis.sweep.state import finished
from zss_d2.analysis.sweep.table import check_settings, collect, write_tables
from zss_d2.errors import ZssError


def execute(runs: Sequence[Run], jobs: int, num_gpus: int) -> Execution:
    """Execute the runs, none of which is finished, ``jobs`` at once.

    Raises:
        ZssError: train_net.py is not there, or this machine has too little for that many.
    """
    if runs and runner.TRAIN_NET and not runner.TRAIN_NET.is_file():
        raise ZssError(f"{runner.TRAIN_NET} does not exist; install the project again")
    slots = []
    if runs:
        devices = {run.config().MODEL.DEVICE for run in runs}
        slots = share_out(min(jobs, len(runs)), num_gpus, devices)
    if len(slots) > 1:
        print(f"{len(slots)} runs at once: {'; '.join(map(str, slots))}", flush=True)
    execution = Execution(runs, slots, num_gpus)
    execution.run()
    return execution


def run_sweep(args: argparse.Namespace) -> int:
    """Do what the command line of ``zss sweep`` says; returns the exit status."""
    runs = plan_runs(args)
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
