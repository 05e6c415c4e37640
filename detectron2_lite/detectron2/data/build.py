"""Loaders for training and for inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
from detectron2._slice import describe_missing
from detectron2.config import CfgNode, configurable
from detectron2.data.catalog import DatasetCatalog
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils import data

Mapper = Callable[[dict], Any]


def get_detection_dataset_dicts(names: str | Sequence[str]) -> list[dict] | data.Dataset:
    """Records of the named data sets, one after the other; AssertionError if one is empty.

    Where the registered functions return torch data sets, so does this.
    """
    names = [names] if isinstance(names, str) else list(names)
    assert names, "no data set is named"
    sources = [DatasetCatalog.get(name) for name in names]
    if isinstance(sources[0], data.Dataset):
        return sources[0] if len(sources) == 1 else data.ConcatDataset(sources)
    for name, records in zip(names, sources, strict=True):
        assert len(records), f"data set {name!r} is empty"
    return list(chain.from_iterable(sources))


def build_batch_data_loader(
    dataset: data.Dataset,
    sampler: data.Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = True,
    **kwargs: Any,
) -> Any:
    """Iterable over batches of this process: lists of ``total_batch_size / processes`` items.

    Args:
        sampler: order of a map-style ``dataset``; None for an iterable one.
        aspect_ratio_grouping: batch landscape and other images apart, by "width" and "height".
        collate_fn: makes something else of the list.
        kwargs: passed on to ``DataLoader``.
    """
    world_size = comm.get_world_size()
    assert total_batch_size > 0 and total_batch_size % world_size == 0, (
        f"the total batch size {total_batch_size} does not divide over {world_size} processes"
    )
    batch_size = total_batch_size // world_size
    if isinstance(dataset, data.IterableDataset):
        assert sampler is None, "an iterable data set brings its own order: sampler must be None"
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    kwargs |= {"num_workers": num_workers, "worker_init_fn": worker_init_reset_seed}
    if not aspect_ratio_grouping:
        return data.DataLoader(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=collate_fn or trivial_batch_collator,
            **kwargs,
        )
    assert drop_last, "grouping by aspect ratio drops incomplete batches"
    single_items = data.DataLoader(dataset, collate_fn=itemgetter(0), **kwargs)
    batches = AspectRatioGroupedDataset(single_items, batch_size)
    return MapDataset(batches, collate_fn) if collate_fn else batches


def _mapped(dataset: list | data.Dataset, mapper: Mapper | None) -> data.Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def _require(mapper: Mapper | None) -> Mapper:
    if mapper is None:
        raise NotImplementedError(
            f"pass mapper=...: {describe_missing('detectron2.data.DatasetMapper')}"
        )
    return mapper


def _train_arguments(
    cfg: CfgNode,
    mapper: Mapper | None = None,
    *,
    dataset: list | data.Dataset | None = None,
    sampler: data.Sampler | None = None,
) -> dict[str, Any]:
    if dataset is None:
        dataset = get_detection_dataset_dicts(cfg.DATASETS.TRAIN)
    if sampler is None and not isinstance(dataset, data.IterableDataset):
        name = cfg.DATALOADER.SAMPLER_TRAIN
        if name != "TrainingSampler":
            raise ValueError(f"DATALOADER.SAMPLER_TRAIN: {describe_missing(name)}")
        # A negative SEED asks for another order in every run.
        sampler = TrainingSampler(len(dataset), seed=cfg.SEED if cfg.SEED >= 0 else None)
    return {
        "dataset": dataset,
        "mapper": _require(mapper),
        "sampler": sampler,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_train_arguments)
def build_detection_train_loader(
    dataset: list | data.Dataset,
    *,
    mapper: Mapper | None,
    sampler: data.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    **kwargs: Any,
) -> Any:
    """Endless loader of mapped records; call it with these arguments or with (cfg, mapper=...).

    The default sampler is a ``TrainingSampler``; ``kwargs`` are those of
    ``build_batch_data_loader``.
    """
    dataset = _mapped(dataset, mapper)
    if sampler is None and not isinstance(dataset, data.IterableDataset):
        sampler = TrainingSampler(len(dataset))
    return build_batch_data_loader(
        dataset, sampler, total_batch_size, aspect_ratio_grouping=aspect_ratio_grouping, **kwargs
    )


def _test_arguments(
    cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Mapper | None = None
) -> dict[str, Any]:
    return {
        "dataset": get_detection_dataset_dicts(dataset_name),
        "mapper": _require(mapper),
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_test_arguments)
def build_detection_test_loader(
    dataset: list | data.Dataset,
    *,
    mapper: Mapper | None,
    sampler: data.Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
) -> data.DataLoader:
    """Loader that visits this process's share of the records once, in order, as lists.

    Call it with these arguments or with (cfg, dataset_name, mapper=...).
    """
    dataset = _mapped(dataset, mapper)
    if sampler is None and not isinstance(dataset, data.IterableDataset):
        sampler = InferenceSampler(len(dataset))
    return data.DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def trivial_batch_collator(batch: list) -> list:
    """The batch as it is: images of several sizes cannot be stacked."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed python, numpy and torch of a loader worker from torch's seed of that worker."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
