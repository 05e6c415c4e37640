"""Throughput against a score: one point per group of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from zss_d2.analysis.over_runs.statistics import Mean
from zss_d2.analysis.report.figures import run_colours
from zss_d2.drawing.lettering import run_labels, style


class Point(NamedTuple):
    """Images per second (median, least, largest of the rounds) and a score in percent."""

    name: str
    rate: float
    least: float
    largest: float
    score: Mean


def draw(points: Sequence[Point], metric: str, title: str) -> Figure:
    """A scatter chart, its horizontal axis logarithmic; bars are ranges and 95 % intervals.

    Args:
        points: with scores.
        metric: name of the score.
        title: what was measured, and on what.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    colours, labels = run_colours([x.name for x in points]), run_labels([x.name for x in points])
    for point, label in zip(points, labels, strict=True):
        sides = [[point.rate - point.least], [point.largest - point.rate]]
        half = point.score.half if point.score.runs > 1 else 0
        axis.errorbar(
            point.rate, point.score.value, xerr=sides, yerr=half, fmt="o", color=colours[point.name]
        )
        axis.annotate(
            label,
            (point.rate, point.score.value),
            xytext=(6, 5),
            textcoords="offset points",
            color=colours[point.name],
            **style([label]),
        )
    _axis_of_rates(axis, [x.rate for x in points])
    axis.set_ylabel(f"{metric} (%)")
    axis.set_title(title, fontsize="medium", **style([title]))
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _axis_of_rates(axis: Axes, rates: Sequence[float]) -> None:
    """Room at the right, where the names are; plain numbers at 1, 2 and 5."""
    axis.set_xlim(min(rates) / 1.6, max(rates) * 3.2)
    axis.margins(y=0.12)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("images per second, one at a time")
