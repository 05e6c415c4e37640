"""Checkpoints: when they are written, which are kept, and which is the best."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from zss_d2.engine.hooks import BestCheckpoint, Checkpoints, Costs, StopOnSignal, peak_memory
from zss_d2.engine.processes import interrupt


class Checkpointer:
    """Writes empty files."""

    def __init__(self, folder: Path):
        self.save_dir = str(folder)
        self.saved: list[str] = []

    def save(self, name: str, iteration: int) -> None:
        self.saved.append(name)
        self.iteration = iteration
        (Path(self.save_dir) / f"{name}.pth").touch()


def run(hook, iterations: int, start: int = 0) -> None:
    hook.trainer = SimpleNamespace(iter=start, start_iter=start, max_iter=iterations)
    hook.before_train()
    for iteration in range(start, iterations):
        hook.trainer.iter = iteration
        hook.after_step()


def numbered(folder: Path) -> list[int]:
    return sorted(int(path.stem[6:]) for path in folder.glob("model_0*.pth"))


@pytest.mark.parametrize(
    ("keep", "expected"), [(0, [1, 3, 5, 7, 9]), (2, [7, 9]), (9, [1, 3, 5, 7, 9])]
)
def test_the_newest_are_kept(tmp_path, keep, expected):
    for name in ("model_final", "model_best", "notes"):
        (tmp_path / f"{name}.pth").touch()
    run(Checkpoints(Checkpointer(tmp_path), period=2, minutes=0, keep=keep), 10)
    assert numbered(tmp_path) == expected
    assert {"model_final.pth", "model_best.pth", "notes.pth"} < {p.name for p in tmp_path.iterdir()}


def test_those_of_before_a_restart_count(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    run(Checkpoints(checkpointer, period=2, minutes=0, keep=2), 7)
    run(Checkpoints(checkpointer, period=2, minutes=0, keep=2), 12, start=7)
    assert numbered(tmp_path) == [9, 11]


def test_minutes_without_a_checkpoint(tmp_path, monkeypatch):
    """Two minutes an iteration, one checkpoint every four minutes or ten iterations."""
    clock = iter(range(0, 10**6, 120))
    monkeypatch.setattr("zss_d2.engine.hooks.time.monotonic", lambda: next(clock))
    checkpointer = Checkpointer(tmp_path)
    run(Checkpoints(checkpointer, period=10, minutes=4.0, keep=0), 10)
    assert len(numbered(tmp_path)) > 2
    assert 9 in numbered(tmp_path)
    assert checkpointer.saved[-1] == "model_final"


def test_an_iteration_is_saved_once(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    hook = Checkpoints(checkpointer, period=2, minutes=0, keep=0)
    run(hook, 2)
    hook.save()
    assert checkpointer.saved == ["model_0000001", "model_final"]


def test_the_best_is_that_of_the_whole_run(tmp_path, caplog):
    """Also after a restart, where the values of before stand in metrics.json."""
    checkpointer = Checkpointer(tmp_path)
    best = []
    for iteration, value in ((1, math.nan), (3, 30.0), (5, 20.0), (7, 30.0), (9, 40.0)):
        hook = BestCheckpoint(checkpointer, 2, lambda value=value: value, "sem_seg/hIoU")
        hook.trainer = SimpleNamespace(iter=iteration, max_iter=99)
        hook.after_step()
        if checkpointer.saved:
            assert checkpointer.saved.pop() == "model_best"
            best.append(iteration)
        with (tmp_path / "metrics.json").open("a") as lines:
            lines.write(json.dumps({"iteration": iteration, "sem_seg/hIoU": value}) + "\n")
    assert best == [3, 9]
    assert caplog.text.count("sem_seg/hIoU has no value here") == 1


def test_the_last_evaluation_counts_unless_the_training_failed(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    hook = BestCheckpoint(checkpointer, 2, lambda: 5.0, "sem_seg/hIoU")
    hook.trainer = SimpleNamespace(iter=7, max_iter=8)
    hook.after_train()
    assert checkpointer.saved == []
    hook.trainer.iter = 8
    hook.after_train()
    assert (checkpointer.saved, checkpointer.iteration) == (["model_best"], 7)


def test_every_process_stops_where_one_has_got_a_signal(monkeypatch):
    saved = []
    hook = StopOnSignal(lambda: saved.append(True))
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda own: [own, None, None])
    hook.after_step()
    assert not saved
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda own: [own, None, 15])
    with pytest.raises(interrupt.Interrupted) as stopped:
        hook.after_step()
    assert (stopped.value.code, stopped.value.saved) == (143, True)
    assert saved


def test_costs_stand_in_every_line_and_are_summed_up(caplog):
    """Seconds 0, 1, ..., 39; the last line has the median of the last 20, the summary of all."""
    caplog.set_level("INFO")
    hook = Costs(period=20, device="cpu")
    with EventStorage() as storage:
        hook.trainer = SimpleNamespace(iter=0, max_iter=40, storage=storage)
        for iteration in range(40):
            hook.trainer.iter = storage.iter = iteration
            storage.put_scalar("time", float(iteration))
            storage.put_scalar("data_time", 0.5)
            hook.after_step()
        assert [when for _, when in storage.history("max_mem").values()] == [19, 39]
        hook.trainer.iter = storage.iter = 40
        hook.after_train()
        assert storage.latest()["max_mem"][1] == 39  # no evaluation, no line
        storage.put_scalar("sem_seg/mIoU", 3.0)
        hook.after_train()
        latest = storage.latest()
    assert latest["time"] == (29.5, 40)
    assert latest["data_time"] == (0.5, 40)
    assert latest["max_mem"][1] == 40
    said = "19.500 s per iteration (median), 0.500 s of it for images (median), "
    assert said in caplog.text
    assert 50 < latest["max_mem"][0] < 1e6  # MiB of a process that has loaded torch


def test_a_training_of_few_iterations_tells_the_time_for_images_alone(caplog):
    caplog.set_level("INFO")
    hook = Costs(period=20, device="cpu")
    with EventStorage(2) as storage:
        storage.put_scalar("data_time", 0.5, cur_iter=1)
        hook.trainer = SimpleNamespace(iter=2, max_iter=2, storage=storage)
        hook.after_train()
    assert "took 0.500 s per iteration for images (median), " in caplog.text


def test_a_training_that_failed_has_no_summary(caplog):
    caplog.set_level("INFO")
    hook = Costs(period=20, device="cpu")
    hook.trainer = SimpleNamespace(iter=3, max_iter=4, storage=EventStorage())
    hook.after_train()
    assert caplog.text == ""


def test_peak_memory_of_a_gpu_is_what_torch_has_allocated(monkeypatch):
    allocated = {"cuda": 7, "cuda:1": 8}  # of the current one, and of another
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated.get)
    assert [peak_memory(device) for device in allocated] == [7, 8]
    before = peak_memory("cpu")
    block = torch.ones(2**26)
    assert peak_memory("cpu") >= max(before, 2**28)
    del block
