"""Curves of the measures along a training, a line per group of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zss_d2.analysis.over_runs.statistics import Mean
from zss_d2.analysis.report.figures import run_colours
from zss_d2.drawing.lettering import legend, run_labels

# Title, and the measures in a panel, the second one dashed.
PANELS = (
    ("CLS tokens retrieved (%)", ("retrieval",)),
    ("regions: purity, dashed coverage (%)", ("purity", "coverage")),
    ("prototypes: cosine to own class, dashed seen", ("own", "nearest seen")),
    ("prototypes nearest to their class (%)", ("own nearest",)),
    ("mIoU-U (%)", ("mIoU-U",)),
)

Curves = Mapping[str, Mapping[int, Mapping[str, Mean]]]


def draw(groups: Curves) -> Figure:
    """Measures over iterations; bars are 95 % intervals over the runs of a group.

    Args:
        groups: name -> iteration -> measure -> mean over its runs.
    """
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    colours = run_colours(list(groups))
    for axis, (title, measures) in zip(axes, PANELS, strict=False):
        for name, points in groups.items():
            for measure, line in zip(measures, ("-", "--"), strict=False):
                known = {x: p[measure] for x, p in points.items() if p[measure].runs}
                bars = [0 if math.isnan(x.half) else x.half for x in known.values()]
                values = [x.value for x in known.values()]
                style = {"color": colours[name], "linestyle": line, "marker": "o", "markersize": 3}
                axis.errorbar(list(known), values, yerr=bars, **style)
        axis.set_title(title, fontsize="small")
        axis.set_xlabel("iterations", fontsize="small")
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_axis_off()
    handles = [Line2D([], [], color=colours[name]) for name in groups]
    legend(axes[-1], handles, run_labels(list(groups)), loc="center", fontsize="small")
    return figure
