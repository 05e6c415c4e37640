"""A few of many."""

from __future__ import annotations


def evenly_spaced(size: int, number: int) -> list[int]:
    """``number`` of the indices 0..size - 1, in the middles of as many parts; all, if fewer."""
    number = min(size, number)
    return [(2 * index + 1) * size // (2 * number) for index in range(number)]
