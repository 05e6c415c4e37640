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
        self._outside = ("highest", True)

    def change(self, allowed: bool, by: int) -> None:
        """Open (1) or close (-1) a scope."""
        with self._lock:
            if not any(self._open.values()):
                self._outside = _state()
            self._open[allowed] += by
            if not any(self._open.values()):
                _set(*self._outside)
            else:
                on, outside = not self._open[False], self._outside[0]
                # "medium" is more than TF32, and was somebody's choice.
                allowing = outside if outside != "highest" else "high"
                _set(allowing if on else "highest", on)


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


def _state() -> tuple[str, bool]:
    """Precision of products, "highest" without TF32, and whether convolutions may use it.

    That of all backends: were it changed for CUDA's alone, torch would refuse to tell it, as
    compilers ask, where it had been set for all, such as by Detectron2's FLOAT32_PRECISION.
    """
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def _set(products: str, convolutions: bool) -> None:
    if _state() != (products, convolutions):
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
