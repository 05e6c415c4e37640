"""Starting the processes of a distributed job."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

DEFAULT_TIMEOUT = timedelta(minutes=30)


def _free_port() -> int:
    # Another process may take it before we do; that is rare, and ends in a clear error.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run ``main_func(*args)`` in every process of a job; call it on every machine.

    Args:
        num_gpus_per_machine: processes per machine; without CUDA they run on the CPU, over gloo.
        machine_rank: of this machine, from 0.
        dist_url: where the processes meet, e.g. "tcp://10.0.0.1:29500"; "auto" finds a port, for a
            single machine.
        timeout: of the collective operations.

    Raises:
        AssertionError: more processes than GPUs, or "auto" for several machines.
        torch.multiprocessing.ProcessRaisedException: a process failed; the others were ended.
    """
    if num_machines * num_gpus_per_machine == 1:
        main_func(*args)
        return
    if torch.cuda.is_available():
        available = torch.cuda.device_count()
        assert num_gpus_per_machine <= available, (
            f"{num_gpus_per_machine} GPUs per machine are asked for, but this one has {available}"
        )
    if dist_url == "auto":
        assert num_machines == 1, "dist_url='auto' works on a single machine only"
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    mp.start_processes(
        _run_process,
        nprocs=num_gpus_per_machine,
        args=(main_func, args, num_gpus_per_machine, num_machines, machine_rank, dist_url, timeout),
        start_method="spawn",
    )


def _run_process(
    local_rank: int,
    main_func: Callable[..., Any],
    args: tuple,
    processes_per_machine: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str | None,
    timeout: timedelta,
) -> None:
    on_gpu = torch.cuda.is_available()
    dist.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        init_method=dist_url,
        world_size=num_machines * processes_per_machine,
        rank=machine_rank * processes_per_machine + local_rank,
        timeout=timeout,
    )
    comm.create_local_process_group(processes_per_machine)
    if on_gpu:
        torch.cuda.set_device(local_rank)
    # Without it a fast process may use up the timeout while others still start.
    comm.synchronize()
    main_func(*args)
    dist.destroy_process_group()
