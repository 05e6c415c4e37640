"""What the benchmarks share: seconds on any device, measurements in turn, their spread, memory."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def synchronise(device: str) -> None:
    """Wait for what a GPU has been given to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Wall time of one call, until the device has finished it."""
    synchronise(device)
    start = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - start


def in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> list[dict[str, float]]:
    """Seconds of every call, one after the other, again and again: ``rounds`` times."""
    return [{name: seconds(call, device) for name, call in calls.items()} for _ in range(rounds)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and in brackets the least and the largest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratios(rounds: Sequence[Mapping[str, float]], name: str, baseline: str) -> list[float]:
    """Seconds of ``name`` over those of ``baseline``, in every round."""
    return [times[name] / times[baseline] for times in rounds]


def peak_mib(device: str = "cpu") -> float:
    """Most memory that torch has had at a time on a GPU, or this process on a CPU, so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
