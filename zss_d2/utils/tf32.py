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
        self._chosen: str | None = None

    def change(self, allowed: bool, by: int) -> None:
        """Open (1) or close (-1) a scope."""
        with self._lock:
            if not any(self._open.values()):
                self._outside, self._chosen = _state(), _chosen_for_all()
            self._open[allowed] += by
            if not any(self._open.values()):
                _set(*self._outside, self._chosen)
            else:
                on = not self._open[False]
                _set(on, on, self._chosen)


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


def _chosen_for_all() -> str | None:
    """ "high" or "medium", where torch was told so for all backends; None: it was not.

    Then it is to be changed for all: with another one of CUDA alone, newer versions refuse to tell
    it, and compilers ask.
    """
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # CUDA has its own already
        return None
    mkldnn = getattr(torch.backends.mkldnn, "matmul", None)  # not in older versions
    of_cuda_alone = mkldnn is not None and mkldnn.fp32_precision not in ("tf32", "bf16")
    return None if precision == "highest" or of_cuda_alone else precision


def _set(products: bool, convolutions: bool, chosen: str | None) -> None:
    if _state() == (products, convolutions):
        return
    if chosen:
        torch.set_float32_matmul_precision(chosen if products else "highest")
    else:
        torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
