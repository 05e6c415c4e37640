"""Tensors on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def fetched(tensor: Tensor) -> Tensor:
    """``tensor`` on the CPU; a GPU of CUDA is not waited for, and fills pinned memory.

    So it may be read only when all work on that GPU has been waited for.
    """
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on the device; a GPU of CUDA is not waited for.

    There memory is held, or copied at once, until the transfer is over. On MPS it is not: torch
    reads what lies there by then (pytorch/pytorch#189690), so it waits.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
