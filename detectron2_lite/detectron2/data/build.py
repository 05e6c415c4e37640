"""Loaders for training and for inference."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from detectron2._slice import describe_missing
from detectron2.config import CfgNode, configurable
from detectron2.data.catalog import DatasetCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils import data

Mapper = Callable[[dict], Any]


class DatasetFromList(data.Dataset):
    """A list as a data set, pickled into one array: what it hands out are copies.

    Reading a list touches the reference counts of its items, so that every worker process would
    end up with a copy of the list; this array is shared between them.
    """

    def __init__(self, lst: list) -> None:
        packed = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in lst]
        self._bounds = np.array([0, *accumulate(map(len, packed))])
        self._bytes = np.frombuffer(b"".join(packed), np.uint8)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return pickle.loads(self._bytes[self._bounds[index] : self._bounds[index + 1]])


class MapDataset(data.Dataset):
    """``map_func`` of every item; NotImplementedError where it returns None."""

    def __init__(self, dataset: data.Dataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        if (item := self._map_func(self._dataset[index])) is None:
            raise NotImplementedError(describe_missing("replacing what a mapper rejects"))
        return item


class _Stream(data.IterableDataset):
    """Items of a data set in the order of a sampler.

    Each worker of a ``DataLoader`` takes every N-th chunk of ``batch_size`` indices, so that the
    batches are those of a loader without workers.
    """

    def __init__(self, dataset: data.Dataset, sampler: data.Sampler, batch_size: int) -> None:
        self._dataset, self._sampler, self._batch_size = dataset, sampler, batch_size

    def __iter__(self) -> Iterator[Any]:
        worker = data.get_worker_info()
        shard, shards = (worker.id, worker.num_workers) if worker else (0, 1)
        for position, index in enumerate(self._sampler):
            if position // self._batch_size % shards == shard:
                yield self._dataset[index]


def get_detection_dataset_dicts(names: str | Sequence[str]) -> list[dict]:
    """Records of the named data sets, one after the other; AssertionError if one is empty."""
    names = [names] if isinstance(names, str) else list(names)
    records = {name: DatasetCatalog.get(name) for name in names}
    empty = [name for name in names if not records[name]]
    assert not empty, f"data sets without records: {', '.join(empty)}"
    return list(chain.from_iterable(records[name] for name in names))


def _mapped(dataset: list | data.Dataset, mapper: Mapper | None) -> data.Dataset:
    dataset = DatasetFromList(dataset) if isinstance(dataset, list) else dataset
    return dataset if mapper is None else MapDataset(dataset, mapper)


def _refuse_config(cfg: CfgNode, *args: Any, **kwargs: Any) -> dict[str, Any]:
    raise NotImplementedError(describe_missing("build_detection_train_loader from a config"))


@configurable(from_config=_refuse_config)
def build_detection_train_loader(
    dataset: list | data.Dataset,
    *,
    mapper: Mapper | None,
    sampler: data.Sampler,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
) -> Iterable[list]:
    """Endless loader of lists of mapped records.

    Args:
        sampler: endless order of the records.
        total_batch_size: over all processes, which share it equally.
        aspect_ratio_grouping: has to be False; only upstream can group images.
    """
    if aspect_ratio_grouping:
        raise NotImplementedError(describe_missing("aspect_ratio_grouping"))
    world_size = comm.get_world_size()
    assert total_batch_size > 0 and total_batch_size % world_size == 0, (
        f"the total batch size {total_batch_size} does not divide over {world_size} processes"
    )
    batch_size = total_batch_size // world_size
    return data.DataLoader(
        _Stream(_mapped(dataset, mapper), sampler, batch_size),
        batch_size=batch_size,
        drop_last=True,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        worker_init_fn=worker_init_reset_seed,
    )


def _test_arguments(
    cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    if mapper is None:
        hint = describe_missing("detectron2.data.DatasetMapper")
        raise NotImplementedError(f"pass mapper=...: {hint}")
    dataset = get_detection_dataset_dicts(dataset_name)
    return {"dataset": dataset, "mapper": mapper, "num_workers": cfg.DATALOADER.NUM_WORKERS}


@configurable(from_config=_test_arguments)
def build_detection_test_loader(
    dataset: list, *, mapper: Mapper | None, batch_size: int = 1, num_workers: int = 0
) -> data.DataLoader:
    """Loader that visits this process's share of the records once, in order, as lists.

    Call it with these arguments or with (cfg, dataset_name, mapper=...).
    """
    return data.DataLoader(
        _mapped(dataset, mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
    )


def trivial_batch_collator(batch: Any) -> Any:
    """The batch as it is: images of several sizes cannot be stacked."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed python, numpy and torch of a loader worker from torch's seed of that worker."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
