"""Executing the runs of a sweep: several at once, past failures, and stopping them together."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import FrameType

from zss_d2.analysis.sweep.plan import Run
from zss_d2.analysis.sweep.slots import Slot
from zss_d2.analysis.sweep.state import finished
from zss_d2.errors import ZssError, user_message
from zss_d2.utils.installation import checkout
from zss_d2.utils.signals import SAME_SIGNAL_S, STOPPING, handled_by, name_of
from zss_d2.utils.text import one_line

# Of a checkout its own script, whatever the working folder holds; None: installed from a wheel.
TRAIN_NET = root / "train_net.py" if (root := checkout()) else None
_SAFE_PATH = {} if TRAIN_NET else {"PYTHONSAFEPATH": "1"}
# Lines of Detectron2's log that tell how far a run is.
PROGRESS = ("eta: ", "Inference done")
INTERRUPTED = "interrupted"
LOG = "console.txt"
POLL_S = 0.2
# What a failed run has started may go on for so long, and a run that is ended because the sweep has
# failed, to save a checkpoint.
LAST_SECONDS = 5.0
SAVING_S = 60.0
# On Linux a run ends, with a checkpoint, when the thread of the sweep that has started it is gone,
# however that came about: PR_SET_PDEATHSIG, which stays across exec.
_TIE = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(143); os.execv(sys.argv[2], sys.argv[2:])"
)


class Execution:
    """Runs in processes of their own, as many at once as there are slots.

    SIGINT, SIGTERM and SIGHUP stop it: running ones get SIGTERM, which lets a training save a
    checkpoint, and no other is begun. Another signal kills them.
    """

    def __init__(self, runs: Sequence[Run], slots: Sequence[Slot], num_gpus: int):
        """
        Args:
            runs: what to execute, in that order.
            slots: what each of those that run at once may use.
            num_gpus: processes of each run.
        """
        self._waiting = deque(enumerate(runs, start=1))
        self._total = len(runs)
        self._slots = slots
        self._num_gpus = num_gpus
        self._running: dict[str, subprocess.Popen] = {}
        self._lock = threading.Lock()
        self._signals: list[tuple[float, int]] = []
        self._stopping = self._killing = False
        self._done = 0
        self._start = time.monotonic()
        # What became of the runs that have ended, by their place: why they failed, "" if they did
        # not.
        self.ended: dict[str, str] = {}

    @property
    def signum(self) -> int | None:
        """The signal that has stopped it, if one has."""
        return self._signals[0][1] if self._signals else None

    def run(self) -> None:
        """Execute what is waiting; returns when no run is left running."""
        if not self._slots:
            return
        with handled_by(self._note, _signals()), ThreadPoolExecutor(len(self._slots)) as pool:
            threads = [pool.submit(self._work, slot) for slot in self._slots]
            while wait(threads, timeout=POLL_S).not_done:
                broken = any(thread.done() and thread.exception() for thread in threads)
                self._heed(broken)
        for thread in threads:
            thread.result()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._signals or now - self._signals[-1][0] > SAME_SIGNAL_S:
            self._signals.append((now, signum))

    def _heed(self, broken: bool) -> None:
        """Stop or kill what is running, if signals or an error of the sweep itself ask for it."""
        if (self._signals or broken) and not self._stopping:
            with self._lock:
                self._stopping = True
                for process in self._running.values():
                    process.terminate()
            if self._signals:
                name = name_of(self._signals[0][1])
                _say(
                    f"{name}: {len(self._running)} running end with a checkpoint; another signal "
                    "kills them"
                )
        if len(self._signals) > 1 and not self._killing:
            self._killing = True
            with self._lock:
                for process in self._running.values():
                    _kill_group(process)

    def _work(self, slot: Slot) -> None:
        """Execute one run after the other within a slot."""
        if slot.cores and hasattr(os, "sched_setaffinity"):
            # Of this thread, and so of all that it starts.
            os.sched_setaffinity(0, slot.cores)
        while True:
            with self._lock:
                if self._stopping or not self._waiting:
                    return
                number, run = self._waiting.popleft()
                left = self._time_left()
            prefix = f"[{number}/{self._total}]"
            _say(f"{prefix} {run}{left}: {run.folder}")
            start = time.monotonic()
            reason = self._execute(run, slot, prefix)
            minutes = (time.monotonic() - start) / 60
            with self._lock:
                self._done += 1
                self.ended[run.place] = reason
            outcome = f"failed: {reason} (see {run.folder / LOG})" if reason else "finished"
            outcome = reason if reason == INTERRUPTED else outcome
            _say(f"{prefix} {run} {outcome} after {minutes:.1f} min")

    def _time_left(self) -> str:
        if not self._done:
            return ""
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        return f", about {left / 60:.0f} min left in all"

    def _execute(self, run: Run, slot: Slot, prefix: str) -> str:
        """Run ``train_net.py``; returns why it failed, "" if it did not.

        Its output is added to `LOG` in the run's folder; progress also goes to the screen.
        """
        log = run.folder / LOG
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file, self._lock:
                if self._stopping:
                    return INTERRUPTED
                begin = file.tell()
                process = _start(run, self._num_gpus, slot, file)
                self._running[run.place] = process
        except OSError as error:
            return user_message(error)
        try:
            words = _follow(process, log, begin, prefix)
        finally:
            _clear(process)
            with self._lock:
                del self._running[run.place]
        if process.returncode:
            return INTERRUPTED if self._stopping else _reason(process.returncode, words)
        try:
            with self._lock:  # data sets are registered, which is not for two threads
                complete = finished(run)
        except ZssError as error:
            return str(error)
        return "" if complete else "it has left no results; is DATASETS.TEST empty?"


def _start(run: Run, num_gpus: int, slot: Slot, log: io.BufferedWriter) -> subprocess.Popen:
    program = [str(TRAIN_NET)] if TRAIN_NET else ["-m", "zss_d2.train"]
    command = [sys.executable, *program, "--config-file", run.config_file, "--resume"]
    command += ["--num-gpus", str(num_gpus), "--dist-url", "auto", *run.overrides]
    command += ["SEED", str(run.seed), "OUTPUT_DIR", str(run.folder)]
    log.write(f"$ {shlex.join(command)}\n".encode())
    log.flush()
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={"PYTHONUNBUFFERED": "1", **_SAFE_PATH, **os.environ, **slot.environment()},
        # A Ctrl-C of the terminal is for the sweep alone, which hands it on.
        start_new_session=True,
    )


def _follow(process: subprocess.Popen, log: Path, begin: int, prefix: str) -> list[str]:
    """Show progress until the process has ended; returns the last lines of its output."""
    last: deque[str] = deque(maxlen=20)
    rest = ""
    with log.open("rb") as file:
        file.seek(begin)
        output = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
        output.readline()  # the command
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            ended = process.returncode is not None
            *lines, rest = (rest + output.read()).split("\n")
            for line in [*lines, rest] if ended else lines:
                if found := [line.index(mark) for mark in PROGRESS if mark in line]:
                    _say(f"{prefix} {line[min(found) :].rstrip()}")
                if line.strip():
                    last.append(line.strip())
            if ended:
                return list(last)


def _reason(status: int, words: Sequence[str]) -> str:
    """Why a process failed, by its exit status and its last lines."""
    if status < 0:
        return f"killed by {name_of(-status)}"
    errors = [line for line in words if line.startswith("error: ")]
    last = (errors or words or [f"exit status {status}, without a word"])[-1]
    return one_line(last.removeprefix("error: "))


def _clear(process: subprocess.Popen) -> None:
    """End a process that is still running, and what one that has failed has left running."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAVING_S)
    if process.returncode == 0:
        return
    end = time.monotonic() + LAST_SECONDS
    while process.returncode is not None and time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(POLL_S)
    _kill_group(process)
    process.wait()


def _kill_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _signals() -> list[int]:
    """Those that stop a sweep; under nohup SIGHUP is ignored, and stays so."""
    hangup = getattr(signal, "SIGHUP", None)
    heard = hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN
    return [*STOPPING, *([hangup] if heard else [])]


def _say(line: str) -> None:
    """One line in one piece, also where several threads have something to say."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
