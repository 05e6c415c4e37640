"""Loader workers: one core each, and no say in when a run ends.

A terminal sends SIGINT, and many schedulers send SIGTERM, to every process of a run. A worker that
ends then takes the iteration with it that the main process still wants to finish.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
from torch.utils.data import DataLoader, get_worker_info

from zss_d2.utils.signals import STOPPING

_begun = False


def pinned(loader: DataLoader, device: str) -> DataLoader:
    """The loader; for CUDA its tensors come in pinned memory, so that copies need not be awaited.

    Detectron2's test loader has no argument for it. With workers a thread of the main process pins.

    Args:
        device: ``MODEL.DEVICE``.
    """
    loader.pin_memory = device.startswith("cuda")
    return loader


class UndisturbedLoader:
    """A loader whose workers, from their first moment on, leave signals to the main process.

    Its mapper must call `begin_worker`, without which the main process itself could not end them.
    """

    def __init__(self, loader: Iterable[Any]):
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if not hasattr(signal, "sigwaitinfo"):
            return iter(self.loader)
        # Workers inherit what is blocked; to the main process it comes a moment later.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            return iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """In a loader worker, once: use one core, and leave signals to the main process.

    Torch itself takes one thread there; OpenCV would take one for every core of the machine in
    every worker. Detectron2's loaders have no place for this, so mappers call it.
    """
    global _begun
    if _begun or get_worker_info() is None:
        return
    _begun = True
    cv2.setNumThreads(0)
    _leave_signals_to_the_main_process()


def _leave_signals_to_the_main_process() -> None:
    """Ignore SIGINT, and SIGTERM unless the main process has sent it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Elsewhere than on Linux nobody tells who has sent a signal; there the worker ends.
    if hasattr(signal, "sigwaitinfo"):
        # Blocked here, hence also in the threads that come later, the signal waits for the watcher.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
