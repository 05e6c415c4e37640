"""Means over runs with their intervals, and how two measures of runs go together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Mean(NamedTuple):
    """A mean over runs, and half of its 95 % interval of Student's t: NaN of a single run."""

    value: float
    half: float
    runs: int

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int) -> str:
        """The mean and, of several runs, its interval; "-" where no run has a value."""
        if self.runs == 0:
            return "-"
        half = f" ± {self.half:.{digits}f}" if self.runs > 1 else ""
        return f"{self.value:.{digits}f}{half}"


def mean_over_runs(values: Sequence[float]) -> Mean:
    """Mean ± t(0.975, n - 1) s / sqrt(n), s the sample's standard deviation; NaNs are left out."""
    from scipy.stats import t

    known = [x for x in values if not math.isnan(x)]
    number = len(known)
    if number < 2:
        return Mean(known[0] if known else math.nan, math.nan, number)
    half = float(t.ppf(0.975, number - 1)) * statistics.stdev(known) / math.sqrt(number)
    return Mean(statistics.fmean(known), half, number)


class Correlation(NamedTuple):
    """Of two measures over runs; NaN where one of them is the same in all runs, or of two runs."""

    pearson: float
    spearman: float
    runs: int


def correlation(a: Sequence[float], b: Sequence[float]) -> Correlation:
    """Pearson's r and Spearman's rho of values in pairs; pairs with a NaN are left out."""
    from scipy.stats import pearsonr, spearmanr

    pairs = [(x, y) for x, y in zip(a, b, strict=True) if not (math.isnan(x) or math.isnan(y))]
    number = len(pairs)
    if number < 3 or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return Correlation(math.nan, math.nan, number)
    first, second = zip(*pairs, strict=True)
    return Correlation(
        float(pearsonr(first, second)[0]), float(spearmanr(first, second)[0]), number
    )
