"""A model that several processes train together."""

from __future__ import annotations

import inspect

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrap_for_processes(model: nn.Module) -> nn.Module:
    """DistributedDataParallel if there are several processes, on GPU or CPU."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [comm.get_local_rank()] if on_gpu else None
    # Its name in newer versions of torch; the old one makes them warn.
    known = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(
        model,
        device_ids=device_ids,
        find_unused_parameters=model.find_unused_parameters,
        **{sync: False},
    )


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first one, which are those that checkpoints hold.

    In training the statistics of batch norm are each process's own; tested with them, every process
    would score its share of the images with another model.
    """
    if comm.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.numel() > 0:
            torch.distributed.broadcast(buffer, src=0)
