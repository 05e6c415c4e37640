"""How GPUs and cores are shared out among runs."""

import os

import pytest
import torch

from zss_d2.analysis.sweep import slots as sweep_slots
from zss_d2.analysis.sweep.slots import Slot, share_out
from zss_d2.errors import ZssError


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """8 cores, 4 GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_every_gpu_and_core_goes_to_one_run():
    first, second = share_out(2, 2, ["cuda"])
    assert first == Slot((0, 1, 2, 3), ("0", "1"), 2)
    assert second == Slot((4, 5, 6, 7), ("2", "3"), 2)
    assert first.environment() == {"CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "2"}
    assert str(second) == "4 CPU cores and GPU 2, 3"
    assert [len(slot.cores) for slot in share_out(3, 1, ["cpu"])] == [2, 3, 3]
    assert sorted(core for slot in share_out(3, 1, ["cpu"]) for core in slot.cores) == [*range(8)]
    assert share_out(2, 1, ["cpu"])[0].environment() == {"OMP_NUM_THREADS": "4"}


def test_gpus_that_are_set_are_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f,-1,0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # -1 ends the list
    assert [slot.gpus for slot in share_out(2, 1, ["cuda"])] == [("3",), ("GPU-8f",)]
    with pytest.raises(ZssError, match="need 3 GPUs, this machine has 2; use at most --jobs 2"):
        share_out(3, 1, ["cuda"])


def test_fewer_threads_that_are_set_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share_out(2, 1, ["cpu"])[0].environment() == {"OMP_NUM_THREADS": "1"}


def test_a_single_run_is_left_alone():
    assert share_out(1, 4, ["cuda"]) == [Slot()]
    assert Slot().environment() == {}


@pytest.mark.parametrize(
    ("jobs", "num_gpus", "devices", "message"),
    [
        (3, 2, ["cuda"], "--jobs 3 of --num-gpus 2 need 6 GPUs, .* 4; use at most --jobs 2"),
        (1, 5, ["cuda"], "--num-gpus 5: this machine has 4 GPUs; use at most --num-gpus 4"),
        (9, 1, ["cpu"], "need 9 CPU cores, this machine has 8; use at most --jobs 8"),
        (1, 9, ["cpu"], "--num-gpus 9: this machine has 8 CPU cores; use at most --num-gpus 8"),
        (5, 1, ["cpu", "cuda"], "need 5 GPUs"),
        (2, 1, ["cuda:1"], "--jobs 2: MODEL.DEVICE cuda:1 is one for all runs; use cuda or cpu"),
        (2, 1, ["mps"], "MODEL.DEVICE mps is one for all runs"),
    ],
)
def test_what_cannot_be_met_is_refused(jobs, num_gpus, devices, message):
    with pytest.raises(ZssError, match=message):
        share_out(jobs, num_gpus, devices)


def test_no_gpu_at_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ZssError, match="has 0 GPUs; add --opts MODEL.DEVICE cpu"):
        share_out(1, 1, ["cuda"])


def test_systems_without_affinity_share_out_threads(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert [slot.threads for slot in share_out(2, 1, ["cpu"])] == [3, 3]
    assert sweep_slots.cpu_cores() == [*range(6)]
