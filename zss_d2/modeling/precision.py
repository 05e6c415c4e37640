"""Precision: networks compute in the one that was chosen, similarities and losses in single.

`ZeroShotSegmentor` is the only place that chooses. A matrix product inside `torch.autocast` is made
in half precision whatever its operands are, so what must not be half is kept outside of it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.float16, torch.bfloat16)


def network_precision(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager:
    """Autocast to ``dtype``; None: whatever is on outside stays, such as a trainer's AMP."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def single_precision(device: torch.device) -> torch.autocast:
    """Turn autocast off, also one that is on outside."""
    return torch.autocast(device.type, enabled=False)


def to_single(value: Any) -> Any:
    """``value`` with its half-precision tensors, also in tuples, lists and dicts, as float32."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(to_single, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(to_single, value))
    if isinstance(value, dict):
        return {key: to_single(item) for key, item in value.items()}
    return value


def in_single_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function of tensors, one of them positional, compute in single precision."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(x.device for x in args if isinstance(x, Tensor))
        with single_precision(device):
            return function(*to_single(args), **to_single(kwargs))

    return run
