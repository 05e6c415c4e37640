"""Scalars and images recorded during training, and the writers that report them."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.history_buffer import HistoryBuffer

_active: list[EventStorage] = []


def has_event_storage() -> bool:
    """Whether we are inside ``with EventStorage(...)``."""
    return bool(_active)


def get_event_storage() -> EventStorage:
    """The innermost storage in use; AssertionError outside ``with EventStorage(...)``."""
    assert _active, "get_event_storage() works only inside a 'with EventStorage(...)' block"
    return _active[-1]


class EventStorage:
    """Scalar histories and pending images, stamped with the current iteration."""

    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._histories: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest: dict[str, tuple[float, int]] = {}
        self._smoothed: dict[str, bool] = {}
        self._images: list[tuple[str, Any, int]] = []  # name, image, iteration
        self._prefix = ""

    def __enter__(self) -> EventStorage:
        _active.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert _active.pop() is self, "storages were left in another order than entered"

    @property
    def iter(self) -> int:
        """Current iteration, counted from 0."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    def step(self) -> None:
        """Go to the next iteration."""
        self._iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Prefix the names of scalars put inside with ``name/``."""
        outer, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = outer

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Record a number or scalar tensor, for this iteration unless ``cur_iter`` is given.

        ``smoothing_hint``: noisy, so writers show a median; always the same for one name.
        """
        name = self._prefix + name
        assert self._smoothed.setdefault(name, smoothing_hint) == smoothing_hint, (
            f"scalar {name!r} was put with another smoothing_hint before"
        )
        newest = (float(value), self.iter if cur_iter is None else cur_iter)
        self._histories[name].update(*newest)
        self._latest[name] = newest

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **scalars: Any
    ) -> None:
        """:meth:`put_scalar` for each keyword."""
        for name, value in scalars.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an RGB tensor or array (3, H, W), uint8 or float in [0, 1], for TensorBoard."""
        self._images.append((img_name, img_tensor, self.iter))

    def clear_images(self) -> None:
        """Forget the pending images."""
        self._images = []

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar; KeyError if it was never put."""
        if name not in self._histories:
            raise KeyError(f"no scalar named {name!r} was put")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All scalars."""
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """Newest (value, iteration) of each scalar."""
        return self._latest

    def smoothing_hints(self) -> dict[str, bool]:
        """The hint given for each scalar."""
        return self._smoothed

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of a scalar fall in the ``window_size`` iterations up to its newest."""
        values = self._histories[name].values()
        oldest = values[-1][1] - window_size
        return sum(1 for _ in takewhile(lambda value: value[1] > oldest, reversed(values)))

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like :meth:`latest`, smoothed scalars as the median of the last iterations."""
        return {
            name: (self._median(name, window_size) if self._smoothed[name] else value, stamp)
            for name, (value, stamp) in self._latest.items()
        }

    def _median(self, name: str, window_size: int) -> float:
        return self._histories[name].median(self.count_samples(name, window_size))


class EventWriter:
    """Base of what reports the current :class:`EventStorage`."""

    def write(self) -> None:
        """Report what is new."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files."""


class _ScalarWriter(EventWriter):
    """Remembers up to which iteration scalars were written."""

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        self._written_up_to = -1

    def _take_new(self) -> list[tuple[int, str, float]]:
        """(iteration, name, value) not handed out before, by iteration."""
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        scalars = sorted((stamp, name, value) for name, (value, stamp) in latest.items())
        new = [scalar for scalar in scalars if scalar[0] > self._written_up_to]
        self._written_up_to = new[-1][0] if new else self._written_up_to
        return new


class JSONWriter(_ScalarWriter):
    """Appends ``{"iteration": i, <scalar>: value, ...}`` to a file, one line per iteration."""

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        super().__init__(window_size)
        self._file = PathManager.open(json_file, "a")

    def write(self) -> None:
        lines: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for stamp, name, value in self._take_new():
            lines[stamp][name] = value
        for stamp, scalars in lines.items():
            self._file.write(json.dumps({**scalars, "iteration": stamp}, sort_keys=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(_ScalarWriter):
    """Writes scalars and images to a TensorBoard folder, made on the first write."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """Keywords go to ``torch.utils.tensorboard.SummaryWriter``."""
        super().__init__(window_size)
        self._arguments = {"log_dir": log_dir, **kwargs}

    @cached_property
    def _summary(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to load, used on rank 0 only

        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        storage = get_event_storage()
        for stamp, name, value in self._take_new():
            self._summary.add_scalar(name, value, stamp)
        for image in storage._images:
            self._summary.add_image(*image)
        storage.clear_images()

    def close(self) -> None:
        if "_summary" in vars(self):
            self._summary.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, seconds per iteration, learning rate, GPU memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """Without ``max_iter`` (iterations in all) the line has no ETA."""
        self._max_iter = max_iter
        self._window_size = window_size
        self._logger = logging.getLogger(__name__)

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # training is complete
            return
        histories = storage.histories()
        fields = [f"iter: {storage.iter}"]
        if self._max_iter is not None and "time" in histories:
            seconds = histories["time"].median(1000) * (self._max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            fields.insert(0, f"eta: {timedelta(seconds=int(seconds))}")
        for mark in ("loss", "[metric]"):
            for name in histories:
                if mark in name:
                    fields.append(f"{name}: {storage._median(name, self._window_size):.4g}")
        if "time" in histories:
            spent = histories["time"]
            fields += [f"time: {spent.global_avg():.4f}", f"last_time: {spent.latest():.4f}"]
        if "data_time" in histories:
            waited = histories["data_time"]
            mean = waited.avg(storage.count_samples("data_time", self._window_size))
            fields += [f"data_time: {mean:.4f}", f"last_data_time: {waited.latest():.4f}"]
        fields.append(f"lr: {histories['lr'].latest():.5g}" if "lr" in histories else "lr: N/A")
        if torch.cuda.is_available():
            fields.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        self._logger.info(" %s", "  ".join(fields))
