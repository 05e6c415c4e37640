"""GPUs and CPU cores, shared out among the runs that a sweep executes at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from zss_d2.engine.processes.launching import cpu_cores
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Slot:
    """What one run at a time may use.

    Args:
        cores: numbers of CPU cores; none: whatever this process may use.
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them; none: it stays as it is.
        threads: of each process of the run; 0: as they choose.
    """

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    threads: int = 0

    def environment(self) -> dict[str, str]:
        """The variables that keep a run within its slot."""
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        if self.threads:
            given = os.environ.get("OMP_NUM_THREADS", "")
            fewer = given.isdecimal() and 0 < int(given) < self.threads
            variables["OMP_NUM_THREADS"] = given if fewer else str(self.threads)
        return variables

    def __str__(self) -> str:
        parts = [f"{len(self.cores)} CPU core{'s' * (len(self.cores) > 1)}"]
        if self.gpus:
            parts.append(f"GPU {', '.join(self.gpus)}")
        return " and ".join(parts)


def share_out(jobs: int, num_gpus: int, devices: Collection[str]) -> list[Slot]:
    """Slots for ``jobs`` runs at once; a single one gets everything.

    Args:
        jobs: runs at once.
        num_gpus: processes of each run.
        devices: every ``MODEL.DEVICE`` that occurs.

    Raises:
        ZssError: there are fewer GPUs or cores than that needs, or no telling which are used.
    """
    on_gpu = [device for device in devices if device.startswith("cuda")]
    cores = cpu_cores()
    if on_gpu:
        gpus = _visible_gpus()
        _require(jobs, num_gpus, len(gpus), "GPUs")
    if len(on_gpu) < len(devices):
        _require(jobs, num_gpus, len(cores), "CPU cores")
    if jobs == 1:
        return [Slot()]
    _require(jobs, 1, len(cores), "CPU cores")
    for device in devices:
        if device not in ("cuda", "cpu"):
            raise ZssError(
                f"--jobs {jobs}: MODEL.DEVICE {device} is one for all runs; use cuda or cpu, or "
                "--jobs 1"
            )
    slots = []
    for job in range(jobs):
        mine = _part(cores, job, jobs)
        visible = gpus[job * num_gpus : (job + 1) * num_gpus] if on_gpu else ()
        slots.append(Slot(tuple(mine), tuple(visible), max(1, len(mine) // num_gpus)))
    return slots


def _require(jobs: int, num_gpus: int, there: int, what: str) -> None:
    if num_gpus > there:
        remedy = f"use at most --num-gpus {there}" if there else "add --opts MODEL.DEVICE cpu"
        raise ZssError(f"--num-gpus {num_gpus}: this machine has {there} {what}; {remedy}")
    if jobs * num_gpus > there:
        raise ZssError(
            f"--jobs {jobs} of --num-gpus {num_gpus} need {jobs * num_gpus} {what}, this machine "
            f"has {there}; use at most --jobs {there // num_gpus}"
        )


def _part(items: Sequence[int], index: int, parts: int) -> Sequence[int]:
    """One of ``parts`` pieces of equal length, or one longer."""
    return items[len(items) * index // parts : len(items) * (index + 1) // parts]


def _visible_gpus() -> list[str]:
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names][:count]
