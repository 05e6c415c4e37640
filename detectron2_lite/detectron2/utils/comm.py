"""Communication between processes; every function also works in a single process."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_local_group: dist.ProcessGroup | None = None


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes in all."""
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    """Rank of this process among all."""
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    """Whether this process has rank 0."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the processes of each machine, whose ranks are consecutive; collective, called once."""
    global _local_group
    assert _local_group is None, "the local process group exists already"
    world_size, size = get_world_size(), num_workers_per_machine
    assert world_size % size == 0, f"{world_size} processes do not split into machines of {size}"
    for first in range(0, world_size, size):
        # new_group is collective: each process also takes part in making the others' groups.
        group = dist.new_group(list(range(first, first + size)))
        if first <= get_rank() < first + size:
            _local_group = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of the processes on this machine."""
    assert _local_group is not None, (
        "no local process group: start processes with detectron2.engine.launch, or call "
        "comm.create_local_process_group(processes_per_machine) after init_process_group"
    )
    return _local_group


def get_local_rank() -> int:
    """Rank of this process on its machine."""
    return dist.get_rank(get_local_process_group()) if _initialized() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(get_local_process_group()) if _initialized() else 1


def synchronize() -> None:
    """Wait until every process gets here."""
    if get_world_size() > 1:
        on_gpu = dist.get_backend() == "nccl"
        dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    """All processes, over gloo: NCCL would stage python objects in GPU memory."""
    return dist.new_group(backend="gloo") if dist.get_backend() == "nccl" else dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Picklable ``data`` of every process, in rank order, on every process."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Picklable ``data`` of every process, in rank order, on rank ``dst``; ``[]`` elsewhere."""
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    gathered = [None] * dist.get_world_size(group) if get_rank() == dst else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered or []


def shared_random_seed() -> int:
    """A seed that all processes agree on (rank 0 draws it with numpy); collective."""
    return all_gather(int(np.random.randint(2**31)))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Mean (or sum) over processes of scalar tensors by key, on rank 0 only; collective."""
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    names = sorted(input_dict)  # whatever order a process filled its dict in
    with torch.no_grad():
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and is_main_process():
            values /= world_size
    return dict(zip(names, values, strict=True))
