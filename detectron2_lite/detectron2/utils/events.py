"""Scalars and images recorded during training, and the writers that report them."""

from __future__ import annotations

import json
import logging
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
    """Histories of scalars, stamped with the current iteration ``iter``, counted from 0."""

    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._histories: dict[str, HistoryBuffer] = {}
        self._smoothed: dict[str, bool] = {}
        self._vis_data: list[tuple[str, Any, int]] = []

    def __enter__(self) -> EventStorage:
        _active.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert _active.pop() is self, "storages were left in another order than entered"

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Record a number or scalar tensor, for this iteration unless ``cur_iter`` is given.

        ``smoothing_hint``: noisy, so writers show a median; always the same for one name.
        """
        assert self._smoothed.setdefault(name, smoothing_hint) == smoothing_hint, (
            f"scalar {name!r} was put with another smoothing_hint before"
        )
        iteration = self.iter if cur_iter is None else cur_iter
        self._histories.setdefault(name, HistoryBuffer()).update(float(value), iteration)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **scalars: Any
    ) -> None:
        """:meth:`put_scalar` for each keyword."""
        for name, value in scalars.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Record an RGB image (3, H, W), uint8 or floats in 0..1, until a writer has written it."""
        self._vis_data.append((img_name, img_tensor, self.iter))

    def clear_images(self) -> None:
        """Forget all images."""
        self._vis_data = []

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar; KeyError if it was never put."""
        return self._histories[name]

    def latest(self) -> dict[str, tuple[float, int]]:
        """Newest (value, iteration) of each scalar."""
        return {name: history.values()[-1] for name, history in self._histories.items()}

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of a scalar fall in the ``window_size`` iterations up to its newest."""
        values = self.history(name).values()
        oldest = values[-1][1] - window_size
        return sum(1 for _ in takewhile(lambda value: value[1] > oldest, reversed(values)))

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like :meth:`latest`, smoothed scalars as the median of the last iterations."""
        latest = self.latest()
        for name in (name for name, smoothed in self._smoothed.items() if smoothed):
            median = self._histories[name].median(self.count_samples(name, window_size))
            latest[name] = (median, latest[name][1])
        return latest


class EventWriter:
    """Base of what reports the news in the current :class:`EventStorage`."""

    def write(self) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


class _ScalarWriter(EventWriter):
    """Remembers up to which iteration scalars were written."""

    _written_up_to = -1

    def _take_new(self) -> list[tuple[int, str, float]]:
        """(iteration, name, value) not handed out before, by iteration."""
        latest = get_event_storage().latest_with_smoothing_hint()
        scalars = sorted((iteration, name, value) for name, (value, iteration) in latest.items())
        new = [scalar for scalar in scalars if scalar[0] > self._written_up_to]
        self._written_up_to = new[-1][0] if new else self._written_up_to
        return new


class JSONWriter(_ScalarWriter):
    """Appends ``{"iteration": i, <scalar>: value, ...}`` to a file, one line per iteration."""

    def __init__(self, json_file: str) -> None:
        self._file = PathManager.open(json_file, "a")

    def write(self) -> None:
        lines: dict[int, dict[str, float]] = {}
        for iteration, name, value in self._take_new():
            lines.setdefault(iteration, {"iteration": iteration})[name] = value
        self._file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in lines.values())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(_ScalarWriter):
    """Writes scalars and images to a TensorBoard folder, made on the first write."""

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir

    @cached_property
    def _summary(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to load, used on rank 0 only

        return SummaryWriter(self._log_dir)

    def write(self) -> None:
        for iteration, name, value in self._take_new():
            self._summary.add_scalar(name, value, iteration)
        storage = get_event_storage()
        for name, image, iteration in storage._vis_data:
            self._summary.add_image(name, image, iteration)
        storage.clear_images()

    def close(self) -> None:
        if "_summary" in vars(self):
            self._summary.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, seconds per iteration, learning rate, GPU memory."""

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter == self._max_iter:  # training is complete
            return
        latest = storage.latest_with_smoothing_hint()
        values = {name: value for name, (value, _) in latest.items()}
        fields = [f"iter: {storage.iter}"]
        if "time" in values:
            left = self._max_iter - storage.iter - 1
            seconds = storage.history("time").median(1000) * left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            fields.insert(0, f"eta: {timedelta(seconds=int(seconds))}")
        shown = (name for name in values if "loss" in name or "[metric]" in name)
        fields += [f"{name}: {values[name]:.4g}" for name in shown]
        for name in ("time", "data_time"):
            if name in values:
                fields.append(f"{name}: {values[name]:.4f}")
        fields.append(f"lr: {values['lr']:.5g}" if "lr" in values else "lr: N/A")
        if torch.cuda.is_available():
            fields.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logging.getLogger(__name__).info(" %s", "  ".join(fields))
