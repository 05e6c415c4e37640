"""Which images go through the network together: the same ones however often a run is stopped.

Sorted images are cut into chunks, of which the processes of a run take turns. In a chunk images of
one size to the network form batches. What a batch holds therefore follows from the list of images,
not from the number of processes or from what an earlier run has finished.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

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
    kinds: Sequence[Hashable | None], areas: Sequence[int], batch: int
) -> Iterator[list[int]]:
    """Positions of the images of a chunk that go through the network together.

    Args:
        kinds: equal of images that can go together; None: the image goes by itself.
        areas: of the images, px.
        batch: images that go together at most.
    """
    groups: list[list[int]] = []
    filling: dict[Hashable, list[int]] = {}
    for position, kind in enumerate(kinds):
        group = filling.get(kind) if kind is not None else None
        area = areas[position] + sum(areas[i] for i in group or ())
        if group is None or len(group) == batch or area > BATCH_PX:
            group = filling[kind] = []
            groups.append(group)
        group.append(position)
    yield from groups
