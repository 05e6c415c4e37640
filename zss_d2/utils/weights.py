"""What whoever keeps something that was made of weights has to know: whether it still holds."""

from __future__ import annotations

import torch
from torch import Tensor


def is_traced() -> bool:
    """Whether what runs becomes a graph: for torch.export, torch.compile or TorchScript.

    A graph is to have the weights of the model itself, and nothing that was made of them before.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def stamp_of(weight: Tensor) -> tuple[int, int, bool]:
    """Another one as soon as a weight was moved, replaced, written to or set free to learn.

    A write through ``weight.data`` leaves no trace.
    """
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.requires_grad
