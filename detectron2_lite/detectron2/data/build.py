"""Loaders for training and for inference."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from detectron2._slice import describe_missing
from detectron2.config import CfgNode, configurable
from detectron2.data.catalog import DatasetCatalog
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils import data

Mapper = Callable[[dict], Any]


class DatasetFromList(data.Dataset):
    """A list as a data set that hands out copies, so that callers may modify its items."""

    def __init__(self, lst: list) -> None:
        self._items = lst

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return copy.deepcopy(self._items[index])


class MapDataset(data.Dataset):
    """``map_func`` of every item; where it returns None, of another item, drawn at random."""

    def __init__(self, dataset: data.Dataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._rejected: set[int] = set()
        self._rng = random.Random(42)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        while (item := self._map_func(self._dataset[index])) is None:
            self._rejected.add(index)
            remaining = [other for other in range(len(self)) if other not in self._rejected]
            assert remaining, "the mapper returned None for every item of the data set"
            index = self._rng.choice(remaining)
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


class _GroupedByAspectRatio:
    """Batches of a stream of records that are all wider than high, or none of them."""

    def __init__(self, records: Iterable[dict], batch_size: int) -> None:
        self._records, self._batch_size = records, batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        waiting: dict[bool, list[dict]] = {True: [], False: []}
        for record in self._records:
            group = record["width"] > record["height"]
            waiting[group].append(record)
            if len(waiting[group]) == self._batch_size:
                yield waiting[group]
                waiting[group] = []


def get_detection_dataset_dicts(names: str | Sequence[str]) -> list[dict]:
    """Records of the named data sets, one after the other; AssertionError if one is empty."""
    names = [names] if isinstance(names, str) else list(names)
    records = {name: DatasetCatalog.get(name) for name in names}
    empty = [name for name in names if not records[name]]
    assert not empty, f"data sets without records: {', '.join(empty)}"
    return list(chain.from_iterable(records[name] for name in names))


def _mapped(dataset: list, mapper: Mapper | None) -> data.Dataset:
    return MapDataset(DatasetFromList(dataset), mapper) if mapper else DatasetFromList(dataset)


def _test_arguments(
    cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    if mapper is None:
        hint = describe_missing("detectron2.data.DatasetMapper")
        raise NotImplementedError(f"pass mapper=...: {hint}")
    dataset = get_detection_dataset_dicts(dataset_name)
    return {"dataset": dataset, "mapper": mapper, "num_workers": cfg.DATALOADER.NUM_WORKERS}


def _train_arguments(cfg: CfgNode, mapper: Mapper | None = None) -> dict[str, Any]:
    arguments = _test_arguments(cfg, cfg.DATASETS.TRAIN, mapper)
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        hint = describe_missing(cfg.DATALOADER.SAMPLER_TRAIN)
        raise ValueError(f"DATALOADER.SAMPLER_TRAIN: {hint}")
    # A negative SEED asks for another order in every run.
    seed = cfg.SEED if cfg.SEED >= 0 else None
    return arguments | {
        "sampler": TrainingSampler(len(arguments["dataset"]), seed=seed),
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
    }


@configurable(from_config=_train_arguments)
def build_detection_train_loader(
    dataset: list,
    *,
    mapper: Mapper | None,
    sampler: data.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
) -> Iterable[list]:
    """Endless loader of lists of mapped records; call it with these arguments or (cfg, mapper=...).

    Args:
        sampler: order of the records; None: a ``TrainingSampler``.
        total_batch_size: over all processes, which share it equally.
        aspect_ratio_grouping: batch landscape and other images apart, by "width" and "height".
    """
    world_size = comm.get_world_size()
    assert total_batch_size > 0 and total_batch_size % world_size == 0, (
        f"the total batch size {total_batch_size} does not divide over {world_size} processes"
    )
    batch_size = total_batch_size // world_size
    sampler = sampler or TrainingSampler(len(dataset))
    loader = data.DataLoader(
        _Stream(_mapped(dataset, mapper), sampler, batch_size),
        batch_size=None if aspect_ratio_grouping else batch_size,
        drop_last=not aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        worker_init_fn=worker_init_reset_seed,
    )
    return _GroupedByAspectRatio(loader, batch_size) if aspect_ratio_grouping else loader


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
