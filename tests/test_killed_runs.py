"""Runs whose processes are killed: what is said, who is left, and that the run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, TINY_CONFIG

pytestmark = pytest.mark.slow

MARK = "ZSS_TEST_FOLDER"
SETTINGS = (
    *("SOLVER.MAX_ITER", "24", "SOLVER.CHECKPOINT_PERIOD", "4", "DATASETS.TEST", "()"),
    *("MODEL.LDVC.DROPOUT", "0.1", "DATALOADER.NUM_WORKERS", "0"),
)
LAUNCH = (sys.executable, "train_net.py", "--num-gpus", "2")
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    "train_net.py",
)


def start(command: Sequence[str], data: Path, folder: Path, *opts: str) -> subprocess.Popen:
    """Start a run in a process group of its own."""
    arguments = ("--config-file", str(TINY_CONFIG), "--resume", *SETTINGS, *opts)
    return subprocess.Popen(
        [*command, *arguments, "OUTPUT_DIR", str(folder)],
        env={**os.environ, "DETECTRON2_DATASETS": str(data), MARK: str(folder)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and last line; nobody who knows its folder may be left a little later."""
    folder = process.args[-1]
    try:
        _, said = process.communicate(timeout=200)
        for _ in range(100):
            if not members(folder):
                break
            time.sleep(0.2)
        assert members(folder) == []
    finally:
        for left in members(folder):
            os.kill(left, signal.SIGKILL)
    return process.returncode, said.strip().splitlines()[-1] if said.strip() else ""


def members(folder: str) -> list[int]:
    """Living processes of the run in a folder, which stands in their environment."""
    mark, found = f"{MARK}={folder}\0".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def ranks(process: subprocess.Popen) -> list[int]:
    """The two processes that train, in order of their ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def assert_no_traceback(folder: Path) -> None:
    """A stop is an ordinary end on every rank."""
    for log in folder.glob("log.txt*"):
        assert "Traceback" not in log.read_text(), log


@pytest.fixture(scope="module")
def undisturbed(voc_root, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(LAUNCH, voc_root, folder))[0] == 0
    return weights(folder)


@pytest.mark.parametrize(
    ("launcher", "workers"), [(LAUNCH, "0"), (TORCHRUN, "1")], ids=["launch", "torchrun"]
)
def test_a_run_of_two_processes_survives_being_killed(
    launcher, workers, undisturbed, voc_root, tmp_path
):
    """Something of it by SIGKILL, then all of them by SIGTERM; weights bit for bit."""
    loader = ("DATALOADER.NUM_WORKERS", workers)
    process = start(launcher, voc_root, tmp_path, *loader)
    wait_for(tmp_path / "model_0000003.pth", process)
    if launcher is TORCHRUN:
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    else:
        # A launcher takes its processes along, which finish their iteration and save.
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        assert (tmp_path / "last_checkpoint").exists()
        assert_no_traceback(tmp_path)
    assert not (tmp_path / "model_final.pth").exists()

    process = start(launcher, voc_root, tmp_path, *loader)
    wait_for(tmp_path / "model_0000011.pth", process)
    os.killpg(process.pid, signal.SIGTERM)
    status, said = finish(process)
    assert status == 143 or (launcher is TORCHRUN and status != 0), said
    assert_no_traceback(tmp_path)
    assert not (tmp_path / "model_final.pth").exists()

    assert finish(start(launcher, voc_root, tmp_path, *loader))[0] == 0
    ended = weights(tmp_path)
    assert [name for name in ended if not torch.equal(ended[name], undisturbed[name])] == []


def test_a_rank_that_is_killed_is_named_and_nobody_is_left(voc_root, tmp_path):
    process = start(LAUNCH, voc_root, tmp_path, "SOLVER.MAX_ITER", "100000")
    wait_for(tmp_path / "model_0000003.pth", process)
    os.kill(ranks(process)[1], signal.SIGKILL)
    status, said = finish(process)
    assert status == 1
    assert "error: rank 1 (process " in said
    assert "was ended by SIGKILL" in said


def test_a_second_run_in_the_same_folder_is_refused(voc_root, tmp_path):
    single = (sys.executable, "train_net.py")
    first = start(single, voc_root, tmp_path, "SOLVER.MAX_ITER", "100000")
    wait_for(tmp_path / "model_0000003.pth", first)
    impatient = (
        "import runpy, sys; from zss_d2.engine import output_folder;"
        "output_folder.PATIENCE_S = 0.5; sys.argv[0] = 'train_net.py';"
        "runpy.run_path('train_net.py', run_name='__main__')"
    )
    second = start((sys.executable, "-c", impatient), voc_root, tmp_path)
    _, said = second.communicate(timeout=200)
    first.terminate()
    assert finish(first)[0] == 143
    assert second.returncode == 2
    assert f"error: OUTPUT_DIR {tmp_path} is in use by process {first.pid} on " in said


def test_a_signal_to_all_processes_in_an_evaluation_loses_nothing(voc_root, tmp_path):
    """Not even if loader workers are just being started, as it reaches them too."""
    settings = ("DATASETS.TEST", "('zss_voc_val',)", "TEST.EVAL_PERIOD", "2")
    single = (sys.executable, "train_net.py")
    process = start(single, voc_root, tmp_path, *settings, "DATALOADER.NUM_WORKERS", "2")
    log = tmp_path / "log.txt"
    wait_for(log, process)
    while "Start inference" not in log.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    status, said = finish(process)
    assert status == 143
    assert said.startswith("stopped by SIGTERM; the last checkpoint is ")
    assert (tmp_path / (tmp_path / "last_checkpoint").read_text()).is_file()


def test_torchrun_starts_a_run_again_that_lost_a_process(voc_root, tmp_path, undisturbed):
    command = (*TORCHRUN[:-1], "--max-restarts", "1", TORCHRUN[-1])
    process = start(command, voc_root, tmp_path)
    wait_for(tmp_path / "model_0000003.pth", process)
    agent = process.pid
    rank = max(pid for pid in members(str(tmp_path)) if parent(pid) == agent)
    os.kill(rank, signal.SIGKILL)
    assert finish(process)[0] == 0
    ended = weights(tmp_path)
    assert [name for name in ended if not torch.equal(ended[name], undisturbed[name])] == []


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
