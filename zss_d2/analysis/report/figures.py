"""The figures of the report, as functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from zss_d2.drawing.colours import distinct_colours
from zss_d2.drawing.lettering import class_labels, drawn_title, legend, run_labels, style
from zss_d2.utils.text import wrapped

# Told apart by readers with any colour vision (Okabe and Ito).
RUN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
UNSEEN_COLOUR = "#B0003A"
UNSEEN_TINT = "#FBEEF2"
# Of a figure, inches; with that it fills the page.
WIDTH = 10.7
CLASSES_PER_COLUMN = 45
# Above that, class names beside a heat map could not be read.
NAMED_CLASSES = 60
# Letters of a title above a heat map, above a panel of curves.
TITLE_WIDTH = 56
PANEL_TITLE_WIDTH = 26

Curve = tuple[Sequence[float], Sequence[float]]


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour for every run, the same in all figures, and no colour for two runs."""
    colours = RUN_COLOURS
    if len(runs) > len(colours):
        colours = tuple(map(to_hex, distinct_colours(len(runs))))
    return dict(zip(runs, colours, strict=False))


def class_bars(
    values: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    unseen_ids: Sequence[int],
    colours: Mapping[str, str],
) -> Figure:
    """IoU per class and run, unseen classes first and tinted; each group falls with the mean.

    Args:
        values: run -> IoU (K,) in percent, NaN where the truth lacks the class.
        colours: run -> colour.
    """
    number, names = len(class_names), class_labels(class_names)
    stacked = np.stack(list(values.values()))
    present = ~np.isnan(stacked).all(axis=0)
    mean = np.where(present, np.nanmean(np.where(present, stacked, 0), axis=0), -1)
    order = sorted(range(number), key=lambda i: (i not in unseen_ids, -mean[i]))
    columns = -(-number // CLASSES_PER_COLUMN)
    per_column = -(-number // columns)
    row_height = max(0.2, 0.1 * len(values) + 0.06)
    figure = Figure(
        figsize=(max(WIDTH, 4.4 * columns), row_height * per_column + 0.9), layout="constrained"
    )
    axes = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    thickness = 0.8 / len(values)
    for column, axis in enumerate(axes):
        ids = order[column * per_column : (column + 1) * per_column]
        rows = np.arange(len(ids))
        for index, (run, iou) in enumerate(values.items()):
            place = rows + (index - (len(values) - 1) / 2) * thickness
            bars = np.nan_to_num(iou[ids])
            axis.barh(place, bars, thickness, color=colours[run])
        for row in rows[~present[ids]]:
            axis.text(0.5, row, "absent", va="center", fontsize="x-small", color="0.4")
        labels = [f"{names[i]} (unseen)" if i in unseen_ids else names[i] for i in ids]
        axis.set_yticks(rows, labels, fontsize="small", **style(labels))
        for text, i, row in zip(axis.get_yticklabels(), ids, rows, strict=True):
            if i in unseen_ids:
                text.set(color=UNSEEN_COLOUR, fontweight="bold")
                axis.axhspan(row - 0.5, row + 0.5, color=UNSEEN_TINT, zorder=0)
        axis.set(xlim=(0, 100), ylim=(len(ids) - 0.5, -0.5), xlabel="IoU (%)")
        axis.grid(axis="x", color="0.88")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    labels = run_labels(list(values))
    columns = 90 // (6 + max(map(len, labels)))
    place = {"loc": "outside upper center", "ncols": min(max(columns, 1), 4)}
    _run_legend(figure, labels, [colours[run] for run in values], **place)
    return figure


def _run_legend(
    owner: Figure | Axes, labels: Sequence[str], colours: Sequence[str], **options: Any
) -> None:
    handles = [Patch(color=colour) for colour in colours]
    legend(owner, handles, labels, frameon=False, **options)


def confusion_map(
    confusion: np.ndarray, class_names: Sequence[str], unseen_ids: Sequence[int], title: str
) -> Figure:
    """Where the pixels of every true class (row) go; unseen classes stand last, behind lines.

    Args:
        confusion: (K, K), predicted x true.
    """
    number = len(class_names)
    order = sorted(range(number), key=lambda i: (i in unseen_ids, i))
    shares = class_shares(confusion)[np.ix_(order, order)]
    figure = Figure(figsize=(0.88 * WIDTH, 0.78 * WIDTH), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(
        shares,
        cmap=mpl.colormaps["Blues"].with_extremes(bad="0.93"),
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
    )
    if number <= NAMED_CLASSES:
        labels = class_labels(class_names)
        names = [labels[i] for i in order]
        looks = {"fontsize": float(np.clip(340 / number, 4.5, 9)), **style(names)}
        axis.set_xticks(range(number), names, rotation=90, **looks)
        axis.set_yticks(range(number), names, **looks)
        for texts in (axis.get_xticklabels(), axis.get_yticklabels()):
            for text, i in zip(texts, order, strict=True):
                if i in unseen_ids:
                    text.set(color=UNSEEN_COLOUR, fontweight="bold")
    border = number - len(unseen_ids) - 0.5
    axis.axhline(border, color=UNSEEN_COLOUR, linewidth=0.8)
    axis.axvline(border, color=UNSEEN_COLOUR, linewidth=0.8)
    axis.set(xlabel="predicted", ylabel="true")
    title = wrapped(drawn_title(title), TITLE_WIDTH)
    axis.set_title(title, **style([title]))
    figure.colorbar(
        image, shrink=0.8, label="share of the true class", format=PercentFormatter(1, decimals=0)
    )
    return figure


def class_shares(confusion: np.ndarray) -> np.ndarray:
    """Confusion (K, K), predicted x true -> share of each true class (row) per prediction (column).

    NaN in the rows of classes without truth.
    """
    true = confusion.sum(axis=0).astype(float)[:, None]
    nothing = np.full(confusion.shape, np.nan)
    return np.divide(confusion.T, true, out=nothing, where=true > 0)


def training_curves(
    losses: Mapping[str, Curve],
    metrics: Mapping[str, Mapping[str, Curve]],
    colours: Mapping[str, str],
) -> Figure:
    """Total loss per run and, where a run was tested on the way, its metrics.

    Args:
        losses: run -> iterations and total loss.
        metrics: title of a panel -> run -> iterations and percent.
        colours: run -> colour.
    """
    panels = 1 + len(metrics)
    figure = Figure(figsize=(max(WIDTH, 3.2 * panels), 3.1), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for run, curve in losses.items():
        # A lone point has no line.
        axes[0].plot(*curve, color=colours[run], marker="." if len(curve[0]) == 1 else "")
    axes[0].set(title="total loss", xlabel="iteration")
    if all(min(values) > 0 for _, values in losses.values()):
        axes[0].set_yscale("log")
    for axis, (metric, curves) in zip(axes[1:], metrics.items(), strict=True):
        for run, curve in curves.items():
            axis.plot(*curve, color=colours[run], marker=".")
        title = wrapped(drawn_title(f"{metric} (%)"), PANEL_TITLE_WIDTH)
        axis.set_title(title, **style([title]))
        axis.set_xlabel("iteration")
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    _run_legend(
        axes[0], run_labels(list(losses)), [colours[run] for run in losses], fontsize="small"
    )
    return figure
