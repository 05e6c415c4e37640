"""Wrappers that turn lists into data sets and data sets into streams."""

from __future__ import annotations

import copy as copy_module
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import data


class _PackedList:
    """Read-only list kept as one byte tensor, which worker processes share instead of copying.

    Python objects would be copied page by page: reading one changes its reference count.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        pickles = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        self.ends = torch.from_numpy(np.cumsum([len(text) for text in pickles], dtype=np.int64))
        self.bytes = torch.frombuffer(bytearray(b"".join(pickles)), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Any:
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        return pickle.loads(memoryview(self.bytes[start : int(self.ends[index])].numpy()))


class DatasetFromList(data.Dataset):
    """A list as a data set that callers may modify the items of without harm.

    Args:
        lst: the items.
        copy: hand out deep copies; of no effect when serialised, which always makes new objects.
        serialize: keep the items pickled, or a function that packs the list in another way.
    """

    def __init__(
        self,
        lst: list,
        copy: bool = True,
        serialize: bool | Callable[[list], Sequence[Any]] = True,
    ) -> None:
        pack = serialize if callable(serialize) else _PackedList
        self._items = pack(lst) if serialize and lst else lst
        self._copy = copy and not serialize

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        return copy_module.deepcopy(item) if self._copy else item


class MapDataset(data.Dataset):
    """``map_func`` applied to every item of a data set.

    An item for which it returns None is replaced by another one, drawn at random; in an iterable
    data set it is left out.
    """

    def __new__(cls, dataset: Any = None, map_func: Callable[[Any], Any] | None = None) -> Any:
        if isinstance(dataset, data.IterableDataset):
            return _MappedStream(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: data.Dataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._rejected: set[int] = set()
        self._rng = random.Random(42)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        index = int(index)
        while (item := self._map_func(self._dataset[index])) is None:
            self._rejected.add(index)
            remaining = sorted(set(range(len(self))) - self._rejected)
            if not remaining:
                raise ValueError("the mapper returned None for every item of the data set")
            index = self._rng.choice(remaining)
        return item


class _MappedStream(data.IterableDataset):
    def __init__(self, dataset: Iterable[Any], map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        return (item for item in map(self._map_func, self._dataset) if item is not None)


class ToIterableDataset(data.IterableDataset):
    """Stream of the items of a map-style data set in the order of ``sampler``.

    Each worker of a ``DataLoader`` takes every N-th chunk of ``shard_chunk_size`` indices, so that
    with a chunk per batch the batches are those of a loader without workers.
    """

    def __init__(
        self, dataset: data.Dataset, sampler: data.Sampler, *, shard_chunk_size: int = 1
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        worker = data.get_worker_info()
        shard, shards = (worker.id, worker.num_workers) if worker else (0, 1)
        for position, index in enumerate(self.sampler):
            if position // self.shard_chunk_size % shards == shard:
                yield self.dataset[index]

    def __len__(self) -> int:
        return len(self.sampler)


class AspectRatioGroupedDataset(data.IterableDataset):
    """Batches of either landscape or other items only; items have "width" and "height"."""

    def __init__(self, dataset: Iterable[dict], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        waiting: dict[bool, list[dict]] = {True: [], False: []}
        for item in self.dataset:
            group = item["width"] > item["height"]
            waiting[group].append(item)
            if len(waiting[group]) == self.batch_size:
                yield waiting[group]
                waiting[group] = []
