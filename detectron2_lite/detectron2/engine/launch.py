"""Starting the processes of a distributed job."""

import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

DEFAULT_TIMEOUT = timedelta(minutes=30)


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
        dist_url: where the processes meet, e.g. "tcp://10.0.0.1:29500"; "auto" finds a port, for a
            single machine.
        timeout: of the collective operations.

    Raises AssertionError for more processes than GPUs, ``ProcessRaisedException`` if one failed.
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
        with socket.create_server(("127.0.0.1", 0)) as probe:
            dist_url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    job = {
        "init_method": dist_url,
        "world_size": num_machines * num_gpus_per_machine,
        "timeout": timeout,
    }
    first_rank = machine_rank * num_gpus_per_machine
    mp.spawn(
        _run_process,
        nprocs=num_gpus_per_machine,
        args=(main_func, args, num_gpus_per_machine, first_rank, job),
    )


def _run_process(
    local_rank: int,
    main_func: Callable[..., Any],
    args: tuple,
    processes_per_machine: int,
    first_rank: int,
    job: dict[str, Any],
) -> None:
    on_gpu = torch.cuda.is_available()
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, rank=first_rank + local_rank, **job)
    comm.create_local_process_group(processes_per_machine)
    if on_gpu:
        torch.cuda.set_device(local_rank)
    # Without it a fast process may use up the timeout while others still start.
    comm.synchronize()
    main_func(*args)
    comm.destroy_process_groups()
