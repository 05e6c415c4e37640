"""The endless stream of training images, which can be entered at any position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from zss_d2.data.pipeline.workers import UndisturbedLoader
from zss_d2.utils.random_streams import IMAGE, own_streams, undisturbed


class Draw(NamedTuple):
    """One image of the stream: how many all processes have drawn before it, and which it is."""

    position: int
    index: int


class ImageStream(Sampler):
    """Draws of endless passes over all images, each in an order of its own.

    The processes take the draws in turn, so batch number i of all of them together is the same for
    any number of processes. The order is that of Detectron2's ``TrainingSampler``.

    Args:
        size: number of images.
        seed: of the orders, and of what is drawn for every image; equal on all processes.

    Attributes:
        position: how many images all processes have drawn before the next iterator starts.
    """

    def __init__(self, size: int, seed: int):
        self.size = size
        self.seed = seed
        self.position = 0
        # Loader workers, which do not belong to the processes of the run, could not tell.
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[Draw]:
        return islice(self._draws(), self._rank, None, self._processes)

    def _draws(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed)
        passes, skipped = divmod(self.position, self.size)
        for _ in range(passes):
            torch.randperm(self.size, generator=generator)
        position = passes * self.size
        while True:
            order = torch.randperm(self.size, generator=generator).tolist()
            for offset, index in enumerate(order[skipped:], start=skipped):
                yield Draw(position + offset, index)
            position, skipped = position + self.size, 0


class DrawnImages(Dataset):
    """Maps records, with random numbers that depend on the position in the stream alone."""

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        stream: ImageStream,
    ):
        self.records = records
        self.mapper = mapper
        self.stream = stream

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        with own_streams(IMAGE, self.stream.seed, draw.position):
            return self.mapper(self.records[draw.index])


class ResumableLoader:
    """A loader of batches and the stream that they come from.

    Attributes:
        stream: set its seed and position before the first batch is taken.
        images: digest of which images there are, in order.
    """

    def __init__(self, batches: Iterable[Any], stream: ImageStream, images: str):
        self.batches = batches
        self.stream = stream
        self.images = images

    def __iter__(self) -> Iterator[Any]:
        # A data loader draws a seed for its workers, which is not to depend on when it starts.
        with undisturbed():
            iterator = iter(UndisturbedLoader(self.batches))
            first = next(iterator)
        yield first
        yield from iterator
