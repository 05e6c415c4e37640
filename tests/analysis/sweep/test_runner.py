"""A sweep executes its runs: past failures, several at once, and stops them together."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.analysis.sweep.pretended import TRAIN_NET, alive, begun, prepare
from tests.conftest import ROOT, TINY_CONFIG
from zss_d2 import errors
from zss_d2.analysis.commands.sweep import main, parse_args
from zss_d2.analysis.sweep import runner
from zss_d2.analysis.sweep import slots as sweep_slots
from zss_d2.analysis.sweep.plan import plan_runs

PATIENCE_S = 60


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    script = tmp_path / "train_net.py"
    script.write_text(TRAIN_NET)
    monkeypatch.setattr(runner, "TRAIN_NET", script)
    monkeypatch.setattr(runner, "LAST_SECONDS", 0.5)
    monkeypatch.setattr(runner, "SAME_SIGNAL_S", 0.0)
    # Two jobs have a core each, also where there is only one.
    cores = (sorted(os.sched_getaffinity(0)) * 2)[:2]
    monkeypatch.setattr(sweep_slots, "cpu_cores", lambda: cores)
    return tmp_path / "output"


def command(output: Path, *fates: str, more: tuple[str, ...] = ()) -> list[str]:
    """The command of a sweep over as many seeds, whose runs will end so."""
    seeds = map(str, range(len(fates)))
    arguments = [str(TINY_CONFIG), "--output", str(output), "--seeds", *seeds, *more]
    for run, fate in zip(plan_runs(parse_args(arguments)), fates, strict=True):
        prepare(run, fate, hiou=10.0 + run.seed)
    return arguments


def folder(output: Path, seed: int) -> Path:
    return output / TINY_CONFIG.stem / f"seed{seed}"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(output, capsys):
    arguments = command(output, "0", "no <b>memory</b> | left", "0")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    log = folder(output, 1) / "console.txt"
    assert captured.err == (
        f"error: 1 of 3 runs failed, see {log}; the same command tries them again\n"
    )
    assert f"[2/3] ldvc_voc_tiny_cpu seed 1 failed: no <b>memory</b> | left (see {log})" in (
        captured.out
    )
    assert "[3/3] eta: 0:00:10  iter: 19" in captured.out
    assert "error: no <b>memory</b> | left" in log.read_text()
    markdown = (output / "table.md").read_text()
    assert "| ldvc_voc_tiny_cpu | zss_voc_val | 2      | 11.0 ± 1.4 |" in markdown  # 10 and 12
    assert "| ldvc_voc_tiny_cpu/seed1 | no \\<b>memory\\</b> \\| left |" in markdown
    rows = list(csv.DictReader((output / "table.csv").open()))
    assert [(row["seed"], row["hIoU"], row["failed"]) for row in rows] == [
        ("0", "10.0", ""),
        ("1", "", "no <b>memory</b> | left"),
        ("2", "12.0", ""),
    ]

    (folder(output, 1) / "fate").write_text("0")
    assert main(arguments) == 0
    assert "2 of 3 runs are already finished" in capsys.readouterr().out
    assert [len(begun(folder(output, seed))) for seed in range(3)] == [1, 2, 1]
    assert log.read_text().count("--config-file") == 2  # the first log is kept
    markdown = (output / "table.md").read_text()
    assert "3      | 11.0 ± 1.0" in markdown
    assert "Failed" not in markdown


def test_a_sweep_into_the_folder_keeps_what_has_failed_in_the_table(output, capsys):
    assert main(command(output, "0", "broken")) == 1
    prepared = command(output, "0")
    assert main(prepared) == 0
    assert "| ldvc_voc_tiny_cpu/seed1 | broken |" in (output / "table.md").read_text()


@pytest.mark.parametrize(
    ("fate", "reason"),
    [("kill", "killed by SIGKILL"), ("nothing", "it has left no results")],
)
def test_however_a_run_fails_it_is_said(output, capsys, fate, reason):
    assert main(command(output, fate)) == 1
    assert reason in (output / "table.md").read_text()
    assert "No run is finished." in (output / "table.md").read_text()


def test_a_folder_that_cannot_be_made_is_a_failure_of_its_run(output, capsys):
    arguments = command(output, "0", "0")
    folder(output, 0).rename(output / "elsewhere")
    folder(output, 0).write_text("a file")
    assert main(arguments) == 1
    assert f"seed0: File exists (see {folder(output, 0)}" in capsys.readouterr().out
    assert (folder(output, 1) / "results.json").is_file()


def test_runs_at_once_have_cores_of_their_own(output, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert main(command(output, "0", "0", "0", more=("--jobs", "2"))) == 0
    assert "2 runs at once: 1 CPU core; 1 CPU core" in capsys.readouterr().out
    for seed in range(3):
        ((cores, gpus, threads, _),) = begun(folder(output, seed))
        assert len(cores) == 1
        assert gpus is None
        assert threads == "1"


def test_a_single_run_gets_everything(output, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert main(command(output, "0")) == 0
    ((cores, _, threads, _),) = begun(folder(output, 0))
    assert cores == sorted(os.sched_getaffinity(0))
    assert threads == "7"


def send(*signals: int, when: Callable[[], bool]) -> threading.Thread:
    """Send signals to this process, the first when the condition holds."""

    def work() -> None:
        wait_for(when)
        for signum in signals:
            os.kill(os.getpid(), signum)
            time.sleep(3 * runner.POLL_S)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_all_and_the_same_command_goes_on(output, capsys, signum):
    arguments = command(output, "wait", "wait", "0", more=("--jobs", "2"))
    running = [folder(output, seed) for seed in range(2)]
    sender = send(signum, when=lambda: all((path / "ready").is_file() for path in running))
    handler = signal.getsignal(signum)
    assert main(arguments) == 128 + signum
    sender.join()
    assert signal.getsignal(signum) is handler
    name = signal.Signals(signum).name
    captured = capsys.readouterr()
    assert captured.err == (
        f"stopped by {name}: 0 of 3 runs are finished; the same command goes on\n"
    )
    assert f"{name}: 2 running end with a checkpoint" in captured.out
    assert all((path / "stopped").is_file() and not alive(path) for path in running)
    assert not (folder(output, 2) / "begun").exists()
    assert "| ldvc_voc_tiny_cpu/seed0 | interrupted |" in (output / "table.md").read_text()

    for path in running:
        (path / "fate").write_text("0")
    assert main(arguments) == 0
    assert "| 3      | 11.0 ± 1.0 |" in (output / "table.md").read_text()


def test_a_second_signal_kills(output, capsys):
    arguments = command(output, "stubborn", "0")
    path = folder(output, 0)
    sender = send(signal.SIGINT, signal.SIGINT, when=(path / "ready").is_file)
    assert main(arguments) == 130
    sender.join()
    assert not alive(path)
    assert not (folder(output, 1) / "begun").exists()


def test_what_a_failed_run_leaves_running_is_ended(output, capsys):
    assert main(command(output, "child")) == 1
    assert "a child is left" in (output / "table.md").read_text()
    assert not alive(folder(output, 0))


def test_a_sweep_that_cannot_print_any_more_ends_its_runs(output, monkeypatch):
    arguments = command(output, "wait", "wait", more=("--jobs", "2"))

    def say(line: str) -> None:
        if "eta" in line:
            wait_for((folder(output, 0) / "ready").is_file)
            wait_for((folder(output, 1) / "ready").is_file)
            raise BrokenPipeError

    monkeypatch.setattr(runner, "_say", say)
    # It would point pytest's own output elsewhere.
    monkeypatch.setattr(errors, "_drop_output", lambda: None)
    assert main(arguments) == 141
    assert not alive(folder(output, 0))
    assert not alive(folder(output, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs outlive a killed sweep")
def test_runs_end_with_a_sweep_that_is_killed(output, tmp_path):
    arguments = command(output, "wait")
    program = (
        "import sys, pathlib; from zss_d2 import cli; from zss_d2.analysis.sweep import runner; "
        f"runner.TRAIN_NET = pathlib.Path({str(tmp_path / 'train_net.py')!r}); "
        "sys.exit(cli.main(['sweep', *sys.argv[1:]]))"
    )
    started = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT)
    wait_for((folder(output, 0) / "ready").is_file)
    started.kill()
    started.wait()
    wait_for((folder(output, 0) / "stopped").is_file)
    wait_for(lambda: not alive(folder(output, 0)))
