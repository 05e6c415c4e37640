"""The label of every pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# So many pixels that scores of one class, the best ones so far and their labels stay in the cache.
TILE_PX = 32768


class NanScoresError(ValueError):
    """Scores that are not a number, so that no class is the best one."""

    def __init__(self) -> None:
        super().__init__(
            "the scores hold NaN, so no class is the best one; the weights are damaged or "
            "SOLVER.AMP overflowed; test an earlier checkpoint"
        )


class Best(NamedTuple):
    """The class with the highest score, pixel by pixel."""

    labels: Tensor  # (H, W) uint8 or, for more than 256 classes, int32
    scores: Tensor  # (H, W), single precision


class LabelsNow(NamedTuple):
    """Labels that nobody has waited for, and whether they mean something."""

    labels: Tensor  # (H, W), as of `Best`
    is_nan: Tensor  # () bool, on the same device: a score is NaN


class LabelsOnly:
    """Stands for scores (K, H, W) that would be too large: knows their shape and the best ones."""

    def __init__(self, labels: Tensor, num_classes: int, scores: Tensor | None = None):
        """
        Args:
            labels: (H, W), the best class of every pixel.
            num_classes: K.
            scores: (H, W), those of the best class; None: unknown.
        """
        self.labels = labels
        self.scores = scores
        self.shape = torch.Size((num_classes, *labels.shape))
        self.device = labels.device

    @classmethod
    def of(cls, scores: Tensor) -> LabelsOnly:
        """What remains of scores (K, H, W) that need not be kept; NaN as in `best_class`."""
        best = best_class(scores, wait=False)
        return cls(best.labels, len(scores), best.scores)

    def argmax(self, dim: int = 0) -> Tensor:
        """Labels (H, W), int64 as of a tensor.

        Raises:
            ValueError: another dimension than the classes'.
        """
        if dim not in (0, -3):
            raise ValueError(f"only the argmax over classes (dim 0) is known, not over dim {dim}")
        return self.labels.long()


def argmax_labels(scores: Tensor | LabelsOnly) -> Tensor:
    """The class with the highest score; of equal ones the first.

    Args:
        scores: (K, H, W).

    Returns:
        (H, W) on the same device, uint8 or, for more than 256 classes, int32.

    Raises:
        NanScoresError: a score is NaN.
    """
    if isinstance(scores, LabelsOnly) and scores.scores is None:
        return scores.labels
    return best_class(scores).labels


def labels_now(scores: Tensor | LabelsOnly) -> LabelsNow:
    """As `argmax_labels`, but on a GPU it is for the caller to look whether scores are NaN.

    Raises:
        NanScoresError: a score is NaN, on a CPU.
    """
    if isinstance(scores, LabelsOnly) and scores.scores is None:
        return LabelsNow(scores.labels, torch.zeros((), dtype=torch.bool, device=scores.device))
    best = best_class(scores, wait=False)
    if best.scores.device.type == "cpu":  # where it was looked for
        return LabelsNow(best.labels, torch.tensor(False))
    return LabelsNow(best.labels, best.scores.isnan().any())


def best_class(scores: Tensor | LabelsOnly, wait: bool = True) -> Best:
    """As `argmax_labels`, with the highest scores themselves.

    Args:
        wait: for a GPU, to see whether a score is NaN; False: a NaN is then among the highest
            scores, for the caller to find. On a CPU there is nothing to wait for.

    Raises:
        NanScoresError: a score is NaN.
        ValueError: `LabelsOnly` without scores.
    """
    if isinstance(scores, LabelsOnly):
        if scores.scores is None:
            raise ValueError("only the labels are known, not their scores")
        if wait and scores.device.type != "cpu":
            _refuse_nan(bool(scores.scores.isnan().any()))
        return Best(scores.labels, scores.scores)
    few = len(scores) <= 256
    if scores.device.type != "cpu":
        best, labels = scores.max(dim=0)
        if wait:
            _refuse_nan(bool(best.isnan().any()))
        return Best(labels.to(torch.uint8 if few else torch.int32), best.float())
    # On a CPU, torch.argmax over the first dimension jumps through memory; class by class over a
    # tile that stays in the cache is several times as fast.
    flat = scores.detach().reshape(len(scores), -1)
    labels = np.zeros(flat.shape[1], np.uint8 if few else np.int32)
    best = np.empty(flat.shape[1], np.float32)
    for first in range(0, flat.shape[1], TILE_PX):
        part = slice(first, first + TILE_PX)
        tile = flat[:, part]
        if tile.dtype not in (torch.float32, torch.float64):
            tile = tile.float()
        best[part] = _label_tile(tile.numpy(), labels[part])
    size = scores.shape[1:]
    return Best(torch.from_numpy(labels).view(size), torch.from_numpy(best).view(size))


def _label_tile(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Index of the largest of the scores (K, N) into ``labels`` (N,), which are zero.

    Returns the largest scores (N,)."""
    best = scores[0].copy()
    better = np.empty(best.shape, bool)
    as_number = better.view(np.uint8)
    candidate = np.empty_like(labels)
    for index in range(1, len(scores)):
        np.greater(scores[index], best, out=better)
        np.maximum(best, scores[index], out=best)
        # Later indices are larger, so the maximum of the candidates is the last better one.
        np.multiply(as_number, labels.dtype.type(index), out=candidate)
        np.maximum(labels, candidate, out=labels)
    _refuse_nan(bool(np.isnan(best).any()))
    return best


def _refuse_nan(found: bool) -> None:
    if found:
        raise NanScoresError
