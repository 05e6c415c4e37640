"""How much a metric would change with other test images: intervals by resampling images.

Every resample draws as many images as there are, with replacement, and computes the metrics of all
their pixels together, by the rules of `zss_d2.evaluation.metrics`. Intervals are percentiles. They
say nothing about other training runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import ImageCounts, StoredCounts
from zss_d2.evaluation.metrics import summarise

METRICS = ("pAcc", "mIoU", "mIoU-S", "mIoU-U", "hIoU")


@dataclass(frozen=True)
class Interval:
    """A value on all images and the interval of resamples, in percent."""

    value: float
    low: float
    high: float


def bootstrap(
    counts: StoredCounts, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Intervals of `METRICS`.

    Args:
        counts: of an evaluation that kept its images.
        resamples: sets of images that are drawn.
        seed: of the draws.
        level: share of the resamples within an interval.

    Raises:
        ZssError: the counts of single images were not kept.
    """
    images = _require_images(counts)
    drawn = _resample(len(images.keys), resamples, seed)
    values = np.array([_metrics(counts, images.total(weights)) for weights in drawn])
    return _intervals(_metrics(counts, counts.confusion), values, level)


def compare(
    first: StoredCounts,
    second: StoredCounts,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of second minus first, with the same images in both at every draw.

    Arguments as of `bootstrap`.

    Raises:
        ZssError: counts of single images were not kept, or of other images or classes.
    """
    a, b = _require_images(first), _require_images(second)
    if a.keys != b.keys:
        raise ZssError(
            f"the runs were tested on other images ({len(set(a.keys) & set(b.keys))} in common of "
            f"{len(a.keys)} and {len(b.keys)}); compare runs on one data set"
        )
    names = [(x.class_names, sorted(x.unseen_names)) for x in (first, second)]
    if names[0] != names[1]:
        raise ZssError("the runs have other (unseen) classes; compare runs on one benchmark")
    values = np.array(
        [
            np.subtract(_metrics(second, b.total(weights)), _metrics(first, a.total(weights)))
            for weights in _resample(len(a.keys), resamples, seed)
        ]
    )
    difference = np.subtract(_metrics(second, second.confusion), _metrics(first, first.confusion))
    return _intervals(difference, values, level)


def contributions(counts: StoredCounts) -> np.ndarray:
    """What each image adds to hIoU: hIoU of all images less that without it (N,), in percent.

    Raises:
        ZssError: the counts of single images were not kept.
    """
    images = _require_images(counts)
    right, true, predicted = images.per_class()
    whole = _harmonic(right.sum(0), true.sum(0), predicted.sum(0), counts.unseen_ids)
    without = _harmonic(
        right.sum(0) - right, true.sum(0) - true, predicted.sum(0) - predicted, counts.unseen_ids
    )
    return whole - without


def _harmonic(
    right: np.ndarray, true: np.ndarray, predicted: np.ndarray, unseen_ids: Sequence[int]
) -> np.ndarray:
    """hIoU in percent from pixels per class (..., K); 0 where it is undefined."""
    union = true + predicted - right
    iou = np.divide(right, union, out=np.zeros(right.shape), where=true > 0)
    unseen = np.isin(np.arange(right.shape[-1]), unseen_ids)
    seen_mean, unseen_mean = (
        (iou * chosen).sum(-1) / np.maximum(((true > 0) & chosen).sum(-1), 1)
        for chosen in (~unseen, unseen)
    )
    total = np.maximum(seen_mean + unseen_mean, np.finfo(float).tiny)
    return 100 * 2 * seen_mean * unseen_mean / total


def _require_images(counts: StoredCounts) -> ImageCounts:
    if counts.images is None or not counts.images.keys:
        raise ZssError(
            "the counts of single images were not kept; evaluate again with TEST.PER_IMAGE True"
        )
    return counts.images


def _resample(number: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of ``number`` images is drawn, per resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, number, number), minlength=number)


def _metrics(counts: StoredCounts, confusion: np.ndarray) -> list[float]:
    metrics = summarise(confusion, counts.class_names, counts.unseen_names)
    return [metrics[name] for name in METRICS]


def _intervals(whole: Sequence[float], values: np.ndarray, level: float) -> dict[str, Interval]:
    """Percentiles of values (resamples, metrics); undefined ones are left out."""
    shares = (1 - level) / 2, (1 + level) / 2
    result = {}
    for name, value, column in zip(METRICS, whole, values.T, strict=True):
        defined = column[~np.isnan(column)]
        ends = np.quantile(defined, shares) if defined.size else (np.nan, np.nan)
        result[name] = Interval(float(value), float(ends[0]), float(ends[1]))
    return result
