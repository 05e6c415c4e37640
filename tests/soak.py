"""Kill runs at random moments and compare what they end with to a run that nobody disturbs.

    python -m tests.soak --kills 30 --seed 0

Preparation of a data set, training on one process and training on two are each killed a third of
the times, by SIGKILL or SIGTERM, at a moment drawn at random: at their start, in an iteration, as a
checkpoint is written, in an evaluation. Afterwards prepared files, weights, optimizer, metrics and
results must equal those of an undisturbed run, bit for bit. On two cores it takes ten minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, TINY_CONFIG, prepare_voc
from tests.engine.test_resume import assert_same_checkpoint, scalars
from tests.test_train_net import results
from zss_d2.data.synthetic.toy_voc import generate

SETTINGS = (
    *("SOLVER.MAX_ITER", "300", "SOLVER.CHECKPOINT_PERIOD", "9", "SOLVER.CHECKPOINT_KEEP", "2"),
    *("TEST.EVAL_PERIOD", "20", "SOLVER.CHECKPOINT_BEST", "mIoU", "MODEL.LDVC.DROPOUT", "0.1"),
)
# Seconds that a process needs to import and build everything, and that it may then work.
STARTING, WORKING = 9.0, 2.5


def start(command: list[str], data: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "DETECTRON2_DATASETS": str(data), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def soak(
    name: str, command: list[str], data: Path, kills: int, moment: Callable[[], float]
) -> Counter:
    """Kill the command so often, then let it finish; returns exit statuses of what was killed."""
    ends: Counter[str] = Counter()
    while sum(ends.values()) < kills:
        process, signum = start(command, data), random.choice((signal.SIGKILL, signal.SIGTERM))
        time.sleep(moment())
        if process.poll() is not None:
            print(f"{name}: ended before it was killed, after {sum(ends.values())} kills")
            break
        # A scheduler signals every process of a job, a person only one.
        (os.killpg if random.random() < 0.5 else os.kill)(process.pid, signum)
        process.communicate(timeout=120)
        ends[f"{signum.name} -> {process.returncode}"] += 1
        print(f"{name}: {signum.name} -> status {process.returncode}", flush=True)
    process = start(command, data)
    _, said = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"{name} does not finish: {said.decode()}")
    return ends


def soak_preparation(work: Path, kills: int) -> None:
    generate(work / "VOC2012", num_train=600, num_val=100, seed=0)
    for name in ("undisturbed", "killed"):
        (work / name).mkdir()
    prepare_voc(work / "VOC2012", work / "undisturbed")
    script = [str(ROOT / "datasets/prepare_voc.py"), "--voc-root", str(work / "VOC2012")]
    command = [*script, "--output", str(work / "killed/zss/voc"), "--workers", "1"]
    ends = soak("preparation", command, work, kills, lambda: random.uniform(0.5, 3.0))
    one, other = (files(work / name) for name in ("undisturbed", "killed"))
    if one != other:
        raise SystemExit(f"preparation: {len(set(one.items()) ^ set(other.items()))} files differ")
    print(f"preparation: {len(one)} files equal after {dict(ends)}\n")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".tmp"
    }


def soak_training(work: Path, kills: int, processes: int) -> None:
    whole, killed = (work / f"{name}{processes}" for name in ("whole", "killed"))
    command = ["train_net.py", "--config-file", str(TINY_CONFIG), "--num-gpus", str(processes)]
    command += ["--resume", "DATALOADER.NUM_WORKERS", str(2 - processes), *SETTINGS, "OUTPUT_DIR"]
    name = f"training on {processes}"
    start([*command, str(whole)], work).wait(timeout=600)
    late = STARTING * (1 + (processes > 1) / 2)

    def moment() -> float:
        return late + random.uniform(-late / 4, WORKING)

    ends = soak(name, [*command, str(killed)], work, kills, moment)
    for file in ("model_final.pth", "model_best.pth"):
        assert_same_checkpoint(whole / file, killed / file)
    assert scalars(whole) == scalars(killed)
    assert results(whole)["zss_voc_val"] == results(killed)["zss_voc_val"]
    print(f"{name}: weights, optimizer, metrics and results equal after {dict(ends)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    args = parser.parse_args()
    random.seed(args.seed)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        soak_preparation(work, args.kills - 2 * (args.kills // 3))
        generate(work / "small/VOC2012", num_train=8, num_val=5, seed=0)
        prepare_voc(work / "small/VOC2012", work)
        for processes in (1, 2):
            soak_training(work, args.kills // 3, processes)
    print(f"{args.kills} kills, nothing lost, {(time.monotonic() - begin) / 60:.1f} min")


if __name__ == "__main__":
    main()
