"""Images per second of models, in turn, so that what else a machine does is shared by all."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from zss_d2.modeling.inference import argmax_labels

# Calls of one measurement take at least that long together, seconds, but are no more than so many.
LEAST_S, MOST_CALLS = 0.1, 50

Call = Callable[[], object]


def labelling(model: nn.Module, image: Tensor) -> Call:
    """From an image (3, H, W) uint8 in memory to its labels on the model's device.

    All that a test does with it: normalising, the network under the run's own test protocol, scores
    at full size, argmax. What the class names give is remembered from the first call on.
    """
    height, width = image.shape[1:]
    item = {"image": image, "height": height, "width": width}

    @torch.inference_mode()
    def call() -> Tensor:
        return argmax_labels(model([item])[0]["sem_seg"])

    return call


def seconds(call: Call, calls: int, device: torch.device) -> float:
    """Of one call, the mean of ``calls``, until the device has finished them."""
    _finish(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _finish(device)
    return (time.perf_counter() - start) / calls


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def rounds_in_turn(
    calls: Mapping[str, Call], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Images per second of every call in every round; a round measures each of them once.

    Before it, each is called twice: the first time it prepares what it remembers.
    """
    numbers = {}
    for name, call in calls.items():
        call()
        once = seconds(call, 1, device)
        numbers[name] = min(max(math.ceil(LEAST_S / max(once, 1e-9)), 1), MOST_CALLS)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(1 / seconds(call, numbers[name], device))
    return found


def ratios(found: Mapping[str, Sequence[float]], name: str, base: str) -> list[float]:
    """How many times as fast as ``base`` a call was, round by round."""
    return [a / b for a, b in zip(found[name], found[base], strict=True)]


def describe_device(device: torch.device) -> str:
    """The name of a GPU; of a CPU its model, as far as the system tells, and torch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return f"{_cpu_model() or 'CPU'}, {threads} thread{'s' * (threads > 1)}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # no Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
