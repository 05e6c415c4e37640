"""How much of the enlarged logits a loss looks at at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# Of enlarged logits, at most; up to four copies are alive at once. On a CPU a chunk stays near the
# caches; elsewhere it is large, so that launches (some 80 for each) take little of the time.
CHUNK_BYTES = {"cpu": 8 << 20}
_ELSEWHERE = 1 << 30
# All copies together take no more than one map of all classes, where that is large at all.
_PART_OF_ALL = 4
_SMALL = 256 << 20


def chunk_bytes(whole: int, device: torch.device) -> int:
    """Size of a chunk of enlarged logits on a device, where all of them have ``whole`` bytes."""
    return min(CHUNK_BYTES.get(device.type, _ELSEWHERE), max(_SMALL, whole // _PART_OF_ALL))


def blocks(outer: int, inner: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Cut a grid of outer x inner items into blocks of at most ``at_once``, but at least one.

    A block is several whole rows of the grid, or a part of one; the parts of a row are of about
    equal length.
    """
    if at_once >= inner:
        step = max(1, at_once // max(inner, 1))
        for start in range(0, outer, step):
            yield slice(start, min(start + step, outer)), slice(0, inner)
        return
    parts = -(-inner // max(1, at_once))
    edges = [inner * part // parts for part in range(parts + 1)]
    for index in range(outer):
        for start, stop in zip(edges, edges[1:], strict=False):
            yield slice(index, index + 1), slice(start, stop)
