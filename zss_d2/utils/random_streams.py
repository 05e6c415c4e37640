"""Random streams that follow from what they are for, so that none has a position to remember.

Everything that is drawn at random in training is drawn from a stream that is seeded anew for every
image (seed of the run, position of the image among all that are drawn) and for every step (seed,
iteration, rank). A run that goes on from a checkpoint therefore draws what it would have drawn, and
so does one with more data loader workers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Streams of images and of steps differ where their numbers agree.
IMAGE, STEP = 1, 2


def seed_streams(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's streams, of all devices, from non-negative numbers."""
    words = _words(numbers)
    _seed_cpu(words)
    torch.manual_seed(int(words[2]))


@contextmanager
def own_streams(*numbers: int) -> Iterator[None]:
    """Seeded streams on the CPU inside; outside they stay as they were, whatever is drawn."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = _words(numbers)
    _seed_cpu(words)
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        _restore(states)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the streams on the CPU as they were, whatever is drawn inside."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        _restore(states)


def _words(numbers: tuple[int, ...]) -> np.ndarray:
    return np.random.SeedSequence(numbers).generate_state(3)


def _seed_cpu(words: np.ndarray) -> None:
    random.seed(int(words[0]))
    np.random.seed(words[1])


def _restore(states: tuple) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
