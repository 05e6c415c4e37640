"""TF32, with ten bits of mantissa, for single-precision products on CUDA, within a scope."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import torch

logger = logging.getLogger(__name__)


class _Switch:
    """Torch's switch, which is one for the whole process, shared by the scopes of all threads.

    While any scope wants it off it is off, else on if one wants it on, else as it was before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = {True: 0, False: 0}
        self._outside = (False, True)

    def change(self, allowed: bool, by: int) -> None:
        """Open (1) or close (-1) a scope."""
        with self._lock:
            if not any(self._open.values()):
                self._outside = _state()
            self._open[allowed] += by
            if not any(self._open.values()):
                _set(*self._outside)
            else:
                on = not self._open[False]
                _set(on, on)


_switch = _Switch()
# Once a program has used torch's newer names for the switch, torch refuses to read this one.
_foreign = False


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let products and convolutions of float32 use TF32 on CUDA, or not, until the scope ends.

    Scopes nest, the one that forbids it counts, also where another thread is in it. Nothing is done
    while a graph is traced, which cannot hold such a switch.
    """
    if torch.compiler.is_compiling() or not _usable():
        yield
        return
    _switch.change(allowed, 1)
    try:
        yield
    finally:
        _switch.change(allowed, -1)


def _usable() -> bool:
    global _foreign
    if _foreign:
        return False
    try:
        _state()
    except RuntimeError:
        _foreign = True
        logger.warning(
            "torch's fp32_precision was set in this process, so MODEL.TF32 has no effect in it"
        )
    return not _foreign


def _state() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _set(products: bool, convolutions: bool) -> None:
    if _state() != (products, convolutions):
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions
