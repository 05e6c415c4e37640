"""Pseudo regions and their prototypes against the full ground truth, as functions of arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Of a region without a labelled pixel.
NO_CLASS = -1


def region_classes(
    pseudo: np.ndarray, truth: np.ndarray, number: int, num_classes: int
) -> np.ndarray:
    """The class that most pixels of a region are of; of several with as many the lowest id.

    Args:
        pseudo: (H, W), regions 0..number - 1, negative elsewhere.
        truth: (H, W), class ids; anything outside of 0..num_classes - 1 is void.

    Returns:
        (number,) int64, `NO_CLASS` where no pixel of the region has a class.
    """
    both = (pseudo >= 0) & (truth >= 0) & (truth < num_classes)
    pairs = pseudo[both].astype(np.int64) * num_classes + truth[both]
    votes = np.bincount(pairs, minlength=number * num_classes).reshape(number, num_classes)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), NO_CLASS)


class Coverage(NamedTuple):
    """Pixels of unseen classes: all of them, and those in a region of pseudo labels."""

    covered: int
    pixels: int


def coverage(pseudo: np.ndarray, truth: np.ndarray, unseen: list[int]) -> Coverage:
    """Arguments as of `region_classes`, and the ids of the unseen classes."""
    hidden = np.isin(truth, unseen)
    return Coverage(int((hidden & (pseudo >= 0)).sum()), int(hidden.sum()))


class PrototypeFit(NamedTuple):
    """Cosines of one prototype to text embeddings."""

    own: float  # the class that its region is of, an unseen one
    seen: float  # the nearest seen class
    right: bool  # whether no class, seen or unseen, is nearer than its own


def fit_prototypes(
    prototypes: Tensor, classes: np.ndarray, text: Tensor, seen: Tensor
) -> list[PrototypeFit]:
    """How prototypes of regions of unseen classes lie to the text embeddings; others are left out.

    Args:
        prototypes: (P, C).
        classes: (P,), of `region_classes`.
        text: (K, C), unit norm.
        seen: (K,) bool, with at least one seen class.
    """
    cosine = F.normalize(prototypes, dim=1) @ text.T  # (P, K)
    found = []
    for index, row in zip(classes.tolist(), cosine, strict=True):
        if index == NO_CLASS or seen[index]:
            continue
        others = row.clone()
        others[index] = float("-inf")
        found.append(
            PrototypeFit(float(row[index]), float(row[seen].max()), bool(row[index] > others.max()))
        )
    return found


def margin(predicted: Tensor, keys: Tensor) -> float:
    """Mean over predictions (N, C) of the cosine to the own key (N, C) minus to the nearest other.

    Args:
        keys: unit norm, at least two.
    """
    cosine = F.normalize(predicted.float(), dim=1) @ keys.T
    own = cosine.diagonal().clone()
    cosine.fill_diagonal_(float("-inf"))
    return float((own - cosine.amax(dim=1)).mean())


def mean_of(values: list[float] | list[bool]) -> float:
    """NaN of none."""
    return float(torch.tensor(values, dtype=torch.float64).mean()) if values else float("nan")
