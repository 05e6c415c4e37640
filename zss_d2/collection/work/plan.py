"""Which images go through the network together: the same ones however often a run is stopped.

Sorted images are cut into chunks, of which the processes of a run take turns. In a chunk images of
one size to the network form batches. What a batch holds therefore follows from the list of images,
not from the number of processes or from what an earlier run has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

# Pixels of a batch at most, of more than one image; decoded images wait in memory.
BATCH_PX = 64 * 10**6

Size = tuple[int, int]


def chunks(count: int, batch: int) -> list[range]:
    """Positions 0..count-1 in pieces in which batches are formed."""
    step = 1 if batch == 1 else 4 * batch
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


def share(pieces: Sequence[range], rank: int, processes: int) -> Sequence[range]:
    """The pieces that one process works on."""
    return pieces[rank::processes]


def batches(
    sizes: Sequence[Size | None], batch: int, kind: Callable[[Size], Hashable]
) -> Iterator[list[int]]:
    """Positions of images that go through the network together.

    Args:
        sizes: (H, W) of the images of a chunk, px; None: unknown.
        batch: images that go together at most.
        kind: equal for sizes that can go together; None: the image goes by itself.
    """
    groups: dict[Hashable, list[list[int]]] = {}
    pixels: dict[Hashable, int] = {}
    for position, size in enumerate(sizes):
        same = None if size is None else kind(size)
        area = size[0] * size[1] if size else 0
        open_groups = groups.setdefault(same, [])
        full = (
            same is None
            or not open_groups
            or len(open_groups[-1]) == batch
            or pixels[same] + area > BATCH_PX
        )
        if full:
            open_groups.append([])
            pixels[same] = 0
        open_groups[-1].append(position)
        pixels[same] += area
    yield from sorted((group for groups_ in groups.values() for group in groups_), key=min)
