"""Class embeddings and what moves, in the plane of the text embeddings: one row per run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from zss_d2.analysis.drift.measure import Drift
from zss_d2.analysis.drift.measures import Cloud
from zss_d2.drawing.lettering import class_labels, drawn_title, style
from zss_d2.utils.text import wrapped

COLOURS = {True: "#0072B2", False: "#B0003A"}  # seen, unseen
TITLE_WIDTH = 44
# Classes whose names a panel can hold.
NAMED = 40


def draw(runs: Mapping[str, Drift]) -> Figure:
    """Text embeddings, class means and their spread at the first and the last stage of each run.

    Of a decoder that changes class embeddings, these are what is shown; of another one the tokens.

    Args:
        runs: name of a row -> its measures.
    """
    rows = []
    for name, run in runs.items():
        moving = run.queries if len(run.queries) > 1 else run.tokens
        what = "class embeddings, " if moving is run.queries else "tokens, "
        stages = dict.fromkeys((next(iter(moving)), next(reversed(moving))))
        what *= len(stages) > 1  # the only stage of a method is called by what it is of
        rows.append([(run, moving[x].cloud, f"{name}: {what}{x}") for x in stages])
    columns = max(map(len, rows))
    size = (5.2 * columns, 4.6 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(axes, rows, strict=True):
        for axis in line[len(panels) :]:
            axis.set_visible(False)
        for axis, (run, cloud, title) in zip(line, panels, strict=False):
            _panel(axis, run, cloud)
            text = wrapped(drawn_title(title), TITLE_WIDTH)
            axis.set_title(text, fontsize="medium", **style([text]))
        _same_limits(line[: len(panels)])
    figure.legend(
        handles=[
            *(
                Line2D([], [], color=colour, marker="o", linestyle="", label=name)
                for name, colour in (("seen", COLOURS[True]), ("unseen", COLOURS[False]))
            ),
            Line2D([], [], color="0.3", marker="*", linestyle="", label="text embedding"),
            Line2D([], [], color="0.3", marker="o", linestyle="-", label="to its class mean"),
            Line2D([], [], color="0.6", marker="$\\bigcirc$", linestyle="", label="one deviation"),
        ],
        loc="outside lower center",
        ncols=5,
        fontsize="small",
    )
    return figure


def _panel(axis: Axes, run: Drift, cloud: Cloud) -> None:
    text = run.plane.place(run.text).numpy()
    means, covariances = cloud.means, cloud.covariances
    names = class_labels(run.classes)
    for index, (start, end) in enumerate(zip(text, means.numpy(), strict=True)):
        colour = COLOURS[run.seen[index]]
        axis.plot(*start, "*", color=colour, markersize=9, markeredgewidth=0)
        if np.isnan(end).any():
            continue
        axis.plot(*zip(start, end, strict=True), "-", color=colour, linewidth=0.7, alpha=0.6)
        axis.plot(*end, "o", color=colour, markersize=3.5)
        axis.add_patch(_ellipse(end, covariances[index], colour))
        if len(names) <= NAMED and not run.seen[index]:
            axis.annotate(
                names[index], start, fontsize="x-small", color=colour, **style([names[index]])
            )
    explained = 100 * run.plane.explained
    axis.set_xlabel(f"plane of the text embeddings ({explained:.0f} % of their variance)")
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.margins(0.08)


def _ellipse(centre: np.ndarray, covariance: torch.Tensor, colour: str) -> Ellipse:
    """One standard deviation in every direction."""
    values, axes = torch.linalg.eigh(covariance)
    width, height = (2 * values.clamp(min=0).sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(axes[1, 0], axes[0, 0])))
    return Ellipse(
        tuple(centre), width, height, angle=angle, facecolor=colour, alpha=0.12, edgecolor="none"
    )


def _same_limits(axes: np.ndarray) -> None:
    """What moves between the panels of a row is seen only at one scale."""
    for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        low, high = zip(*(getattr(axis, get)() for axis in axes), strict=True)
        for axis in axes:
            getattr(axis, put)(min(low), max(high))
