"""Runs of a sweep with made-up results, and a stand-in for ``train_net.py`` that leaves them."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from zss_d2.analysis.sweep.plan import Run
from zss_d2.evaluation.results import config_hash, protocol_of

# Ends as the file "fate" in the run's folder says. "0": with the results of "ready.json";
# "nothing": without; "kill": by SIGKILL; "wait": when it is told to, "stubborn": not even then;
# "child": leaves a process running. Anything else is its error. As long as it or its child runs, it
# has a lock on the file "alive".
TRAIN_NET = """
import fcntl, os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
assert "--resume" in sys.argv
begun, alive = folder / "begun", open(folder / "alive", "w")
fcntl.flock(alive, fcntl.LOCK_EX)
def say(text):
    begun.write_text(begun.read_text() + text if begun.is_file() else text)
keys = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
say(repr([sorted(os.sched_getaffinity(0)), *map(os.environ.get, keys), os.getpid()]) + "\\n")
fate = (folder / "fate").read_text() if (folder / "fate").is_file() else "0"
print("[01/01 00:00:00 d2.utils.events]:  eta: 0:00:10  iter: 19  total_loss: 3.1", flush=True)
if fate in ("wait", "stubborn", "child"):
    def stop(*_):
        (folder / "stopped").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if fate == "stubborn" else stop)
    if fate == "child":
        subprocess.Popen(["sleep", "60"], pass_fds=[alive.fileno()])
        sys.exit("a child is left")
    (folder / "ready").touch()
    time.sleep(60)
if fate == "0":
    os.replace(folder / "ready.json", folder / "results.json")
    os.replace(folder / "ready.yaml", folder / "config.yaml")
elif fate == "nothing":
    sys.exit(0)
elif fate == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
else:
    print("error: " + fate, file=sys.stderr)
    sys.exit(2)
"""


def results_of(run: Run, metrics: dict, **provenance: Any) -> str:
    """The results.json that a run of exactly this configuration would leave."""
    cfg = run.config()
    known = dict.fromkeys(("commit", "uncommitted_changes", "detectron2", "torch", "device"), "x")
    known |= {"config_sha256": config_hash(cfg), "iteration": cfg.SOLVER.MAX_ITER}
    known |= {"protocol": protocol_of(cfg)} | provenance
    return json.dumps({cfg.DATASETS.TEST[0]: metrics, "provenance": known})


def pretend(run: Run, metrics: dict, **provenance: Any) -> None:
    """Let a run be finished."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(run.config().dump())
    (run.folder / "results.json").write_text(results_of(run, metrics, **provenance))


def prepare(run: Run, fate: str = "0", hiou: float = 10.0) -> None:
    """Let `TRAIN_NET` end as ``fate`` says."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "ready.yaml").write_text(run.config().dump())
    (run.folder / "ready.json").write_text(results_of(run, {"hIoU": hiou}))
    (run.folder / "fate").write_text(fate)


def begun(folder: Path) -> list[list]:
    """Cores, GPUs, threads and process of every time that `TRAIN_NET` was begun in a folder."""
    path = folder / "begun"
    return [json.loads(_as_json(line)) for line in path.read_text().splitlines()]


def _as_json(line: str) -> str:
    return line.replace("None", "null").replace("'", '"')


def alive(folder: Path) -> bool:
    """Whether `TRAIN_NET`, or what it has started, still runs in a folder."""
    with (folder / "alive").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
