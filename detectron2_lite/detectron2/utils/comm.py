"""Communication between processes; every function also works in a single process.

Ranks and sizes count all processes of a job; local ones those on this machine.
"""

import functools
import gc
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_local_group: dist.ProcessGroup | None = None


def get_world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def get_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the processes of each machine, whose ranks are consecutive; collective, called once."""
    global _local_group
    assert _local_group is None, "the local process group exists already"
    _local_group, _ = dist.new_subgroups(num_workers_per_machine)


def get_local_rank() -> int:
    if not dist.is_initialized():
        return 0
    assert _local_group is not None, "start processes with detectron2.engine.launch"
    return dist.get_rank(_local_group)


def destroy_process_groups() -> None:
    """End communication in this process, with its threads; without a group nothing happens.

    A group that is still referenced keeps its threads, and one of those that frees a tensor while
    the interpreter shuts down aborts the process.
    """
    global _local_group
    _local_group = None
    _cpu_group.cache_clear()
    # A trainer, whose DDP model refers to its group, is a reference cycle.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def synchronize() -> None:
    """Wait until every process gets here."""
    if get_world_size() > 1:
        on_gpu = dist.get_backend() == "nccl"
        dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    """All processes, over gloo: NCCL would stage python objects in GPU memory."""
    return dist.new_group(backend="gloo") if dist.get_backend() == "nccl" else dist.group.WORLD


def all_gather(data: Any) -> list[Any]:
    """Picklable ``data`` of every process, in rank order, on every process."""
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] = [None] * get_world_size()
    dist.all_gather_object(gathered, data, group=_cpu_group())
    return gathered


def gather(data: Any) -> list[Any]:
    """Like ``all_gather``, on rank 0 only; ``[]`` elsewhere."""
    gathered = all_gather(data)
    return gathered if is_main_process() else []


def shared_random_seed() -> int:
    """A seed that all processes agree on (rank 0 draws it with numpy); collective."""
    return all_gather(int(np.random.randint(2**31)))[0]
