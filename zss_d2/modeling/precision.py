"""Precision: networks compute in the one that was chosen, similarities and losses in single.

`Precision.from_config` chooses and `ZeroShotSegmentor` applies it. A matrix product inside
`torch.autocast` is made in half precision whatever its operands are, so what must not be half is
kept outside of it; the same goes for TF32.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from detectron2.config import CfgNode
from torch import Tensor

from zss_d2.config.values import value_of
from zss_d2.utils.tf32 import tf32

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.float16, torch.bfloat16)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device has arithmetic for bfloat16, which it does not just imitate."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Precision:
    """What the networks of a model compute in, on the device that it is for.

    Attributes:
        autocast: in tests, and in a training unless ``amp``; None: that of the weights, or of an
            autocast around the model.
        amp: the trainer's autocast chooses in a training.
        tf32: whether single-precision products and convolutions of the networks use TF32; None: as
            torch is set, such as on other devices than CUDA.
    """

    autocast: torch.dtype | None = None
    amp: bool = False
    tf32: bool | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Precision:
        """Of ``MODEL.AUTOCAST``, ``MODEL.TF32`` and ``SOLVER.AMP`` on ``MODEL.DEVICE``."""
        device, choice = torch.device(cfg.MODEL.DEVICE), cfg.MODEL.AUTOCAST
        on = choice == "bfloat16" or (choice == "auto" and has_bfloat16(device))
        # Detectron2's own key for the same, which not every version has, goes before MODEL.TF32.
        chosen = value_of(cfg, "FLOAT32_PRECISION")
        allowed = chosen != "highest" if chosen else cfg.MODEL.TF32
        switched = device.type == "cuda" and not cfg.MODEL.COMPILE
        return cls(
            torch.bfloat16 if on else None,
            cfg.SOLVER.AMP.ENABLED,
            allowed if switched else None,
        )

    @property
    def of_tests(self) -> str:
        """What the networks compute in when they are tested: "bfloat16" or "float32"."""
        return str(self.autocast or torch.float32).removeprefix("torch.")

    def in_words(self, *, training: bool) -> str:
        """The same for people, such as "float32 with TF32", of a training or of tests."""
        dtype = "float16 by AMP" if training and self.amp else self.of_tests
        return f"{dtype} with TF32" if self.tf32 else dtype

    def networks(
        self, device: torch.device, *, training: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """The context in which the networks are to be called."""
        autocast = None if training and self.amp else self.autocast
        return network_precision(device, autocast, self.tf32)

    def outside_networks(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a whole training: TF32 as in the networks, also for gradients."""
        return contextlib.nullcontext() if self.tf32 is None else tf32(self.tf32)


def network_precision(
    device: torch.device, dtype: torch.dtype | None, allow_tf32: bool | None = None
) -> contextlib.AbstractContextManager[Any]:
    """Autocast to ``dtype``; None: whatever is on outside stays, such as a trainer's AMP.

    Args:
        allow_tf32: on CUDA, whether to use TF32 where single precision is left; None: as it is set.
    """
    autocast = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
    if device.type != "cuda" or allow_tf32 is None or torch.compiler.is_compiling():
        return autocast
    return _both(autocast, tf32(allow_tf32))


def single_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Turn autocast off, also one that is on outside, and TF32."""
    autocast = torch.autocast(device.type, enabled=False)
    if device.type != "cuda" or torch.compiler.is_compiling():
        return autocast
    return _both(autocast, tf32(False))


@contextlib.contextmanager
def _both(
    one: contextlib.AbstractContextManager[Any], other: contextlib.AbstractContextManager[Any]
) -> Iterator[None]:
    with one, other:
        yield


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
