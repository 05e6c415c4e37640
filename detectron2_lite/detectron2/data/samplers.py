"""Which indices each process reads."""

from collections.abc import Iterator
from itertools import islice

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler


class TrainingSampler(Sampler):
    """Endless permutations of ``range(size)``; the processes take their indices in turn.

    Args:
        size: number of items, positive.
        seed: of the permutations, equal on all processes; None draws one that they share.
    """

    def __init__(self, size: int, *, seed: int | None = None) -> None:
        assert size > 0, f"a TrainingSampler needs at least one item, not {size}"
        self._size = size
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return islice(self._stream(), self._rank, None, self._world_size)

    def _stream(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            yield from torch.randperm(self._size, generator=generator).tolist()


class InferenceSampler(Sampler):
    """Every index exactly once over all processes: contiguous shares, the first ones larger."""

    def __init__(self, size: int) -> None:
        assert size > 0, f"an InferenceSampler needs at least one item, not {size}"
        rank = comm.get_rank()
        share, left = divmod(size, comm.get_world_size())
        begin = rank * share + min(rank, left)
        self._local_indices = range(begin, begin + share + (rank < left))

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
