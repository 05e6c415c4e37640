"""What a training step measures beside its losses, such as how often GLM finds the right image.

A model calls `measure` where the number is at hand; the engine, which reads the losses of the step
anyway, then reads it with them. Until then it stays on the device, so no step waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

Measured = dict[str, list[Tensor]]

_open: list[Measured] = []


@contextmanager
def collect_measures() -> Iterator[Measured]:
    """Yields a dict that `measure` fills while the context is open: name -> scalars, in turn."""
    found: Measured = {}
    _open.append(found)
    try:
        yield found
    finally:
        _open.remove(found)


def measure(name: str, value: Tensor) -> None:
    """Hand over a scalar (), without its gradient; nothing happens where nobody collects.

    Args:
        name: of the curve in metrics.json. Without a slash, which stands for evaluations.
    """
    if _open:
        _open[-1].setdefault(name, []).append(value.detach())
