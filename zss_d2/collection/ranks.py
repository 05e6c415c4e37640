"""The processes of a run that ``torchrun`` has started, or the only one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from zss_d2.engine.processes import interrupt
from zss_d2.engine.processes.launching import join_torchrun, under_torchrun
from zss_d2.errors import ZssError, user_message
from zss_d2.utils.cores import cpu_cores

T = TypeVar("T")

# They meet at the start and at the end, and what lies between may take one of them days more.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: of this process, 0 to ``world`` - 1.
        world: processes of the run.
        local_rank: of this process among those of this machine.
        local_world: processes of this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    def first(self, work: Callable[[], T]) -> T:
        """What the first process makes of ``work``, in all of them; an error ends all of them."""
        if self.world == 1:
            return work()
        outcome = self._outcome(work) if self.rank == 0 else None
        return self._agreed([outcome])[0]

    def each(self, work: Callable[[], T]) -> T:
        """What this process makes of ``work``; an error of one ends all of them."""
        if self.world == 1:
            return work()
        value, error = self._outcome(work)
        self._agreed([(None, error)], own=True)
        return value

    def total(self, number: int) -> int:
        """The sum of every process's number; waits for all of them."""
        if self.world == 1:
            return number
        value = torch.tensor(number)
        _wait(dist.all_reduce(value, async_op=True))
        return int(value)

    def _outcome(self, work: Callable[[], T]) -> tuple[T | None, str]:
        try:
            return work(), ""
        except (ZssError, OSError) as error:
            return None, user_message(error)

    def _agreed(self, outcome: list, own: bool = False) -> list:
        """Outcomes of all processes, or of the first; ends where one of them is an error."""
        if own:
            outcomes: list[Any] = [None] * self.world
            dist.all_gather_object(outcomes, outcome[0])
        else:
            dist.broadcast_object_list(outcome)
            outcomes = outcome
        error = next((error for _, error in outcomes if error), "")
        if error and self.rank == 0:
            raise ZssError(error)
        if error:
            raise SystemExit(2)  # the first process says why
        return [value for value, _ in outcomes]


def join() -> Ranks:
    """Meet the other processes of this run, if ``torchrun`` has started some.

    Processes of one machine share its cores. A single one leaves a core to the threads that read
    and write: where there is none left for one of its own, torch waits for it in each operation.
    """
    cores = len(cpu_cores())
    if not under_torchrun():
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cores - 1))
        return Ranks()
    interrupt.end_with_parent()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    ranks = Ranks(*(int(os.environ[name]) for name in names))
    if ranks.world > 1:
        join_torchrun("gloo", PATIENCE)
        torch.set_num_threads(max(1, cores // ranks.local_world))
    return ranks


def device_of(device: str, ranks: Ranks) -> str:
    """The device of this process: on each machine, every process has a GPU of its own.

    Raises:
        ZssError: one GPU is named for several processes; there are too few.
    """
    gpus = torch.cuda.device_count()
    if ranks.local_world == 1 or device not in ("auto", "cuda"):
        if ranks.local_world > 1 and device.startswith("cuda:"):
            raise ZssError(
                f"--device {device} is one GPU, and there are {ranks.local_world} processes; give "
                "--device cuda, and each takes one of its own"
            )
        return device
    if gpus == 0:
        return device
    if ranks.local_rank >= gpus:
        raise ZssError(
            f"there are {ranks.local_world} processes on this machine and {gpus} GPUs; start "
            f"torchrun with --nproc-per-node {gpus}, or give --device cpu"
        )
    return f"cuda:{ranks.local_rank}"


def lost_contact(error: RuntimeError) -> str:
    """What to say if processes could no longer meet; empty for any other error."""
    lost = re.search(r"[Cc]onnection|Broken pipe|remote process|[Tt]imed? ?out", str(error))
    return "contact with another process was lost, which has probably ended" if lost else ""


def _wait(work: dist.Work) -> None:
    # Inside the library no signal would be noticed.
    while not work.is_completed():
        time.sleep(0.05)
    work.wait()
