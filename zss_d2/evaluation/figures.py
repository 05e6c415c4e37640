"""The figures of the report, as functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Told apart by readers with any colour vision (Okabe and Ito).
RUN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
UNSEEN_COLOUR = "#B0003A"
UNSEEN_TINT = "#FBEEF2"
CLASSES_PER_COLUMN = 45
# Above that, class names beside a heat map could not be read.
NAMED_CLASSES = 60

Curve = tuple[Sequence[float], Sequence[float]]


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour for every run, the same in all figures."""
    return {run: RUN_COLOURS[index % len(RUN_COLOURS)] for index, run in enumerate(runs)}


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
    number = len(class_names)
    stacked = np.stack(list(values.values()))
    present = ~np.isnan(stacked).all(axis=0)
    mean = np.where(present, np.nanmean(np.where(present, stacked, 0), axis=0), -1)
    order = sorted(range(number), key=lambda i: (i not in unseen_ids, -mean[i]))
    columns = -(-number // CLASSES_PER_COLUMN)
    per_column = -(-number // columns)
    row_height = max(0.2, 0.1 * len(values) + 0.06)
    figure = Figure(
        figsize=(max(8.8, 4.4 * columns), row_height * per_column + 0.9), layout="constrained"
    )
    axes = figure.subplots(1, columns, squeeze=False, sharex=True)[0]
    thickness = 0.8 / len(values)
    for column, axis in enumerate(axes):
        ids = order[column * per_column : (column + 1) * per_column]
        rows = np.arange(len(ids))
        for index, (run, iou) in enumerate(values.items()):
            place = rows + (index - (len(values) - 1) / 2) * thickness
            bars = np.nan_to_num(iou[ids])
            axis.barh(place, bars, thickness, color=colours[run], label=run)
        for row in rows[~present[ids]]:
            axis.text(0.5, row, "absent", va="center", fontsize="x-small", color="0.4")
        labels = [f"{class_names[i]} (unseen)" if i in unseen_ids else class_names[i] for i in ids]
        axis.set_yticks(rows, labels, fontsize="small")
        for text, i, row in zip(axis.get_yticklabels(), ids, rows, strict=True):
            if i in unseen_ids:
                text.set(color=UNSEEN_COLOUR, fontweight="bold")
                axis.axhspan(row - 0.5, row + 0.5, color=UNSEEN_TINT, zorder=0)
        axis.set(xlim=(0, 100), ylim=(len(ids) - 0.5, -0.5), xlabel="IoU (%)")
        axis.grid(axis="x", color="0.88")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
    return figure


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
    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(
        shares,
        cmap=mpl.colormaps["Blues"].with_extremes(bad="0.93"),
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
    )
    if number <= NAMED_CLASSES:
        names = [class_names[i] for i in order]
        size = float(np.clip(260 / number, 4.5, 9))
        axis.set_xticks(range(number), names, fontsize=size, rotation=90)
        axis.set_yticks(range(number), names, fontsize=size)
        for texts in (axis.get_xticklabels(), axis.get_yticklabels()):
            for text, i in zip(texts, order, strict=True):
                if i in unseen_ids:
                    text.set(color=UNSEEN_COLOUR, fontweight="bold")
    border = number - len(unseen_ids) - 0.5
    axis.axhline(border, color=UNSEEN_COLOUR, linewidth=0.8)
    axis.axvline(border, color=UNSEEN_COLOUR, linewidth=0.8)
    axis.set(xlabel="predicted", ylabel="true", title=title)
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
        metrics: metric -> run -> iterations and percent.
        colours: run -> colour.
    """
    panels = 1 + len(metrics)
    figure = Figure(figsize=(max(8.8, 3.2 * panels), 3.1), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for run, curve in losses.items():
        axes[0].plot(*curve, color=colours[run], label=run)
    axes[0].set(title="total loss", xlabel="iteration")
    if all(min(values) > 0 for _, values in losses.values()):
        axes[0].set_yscale("log")
    for axis, (metric, curves) in zip(axes[1:], metrics.items(), strict=True):
        for run, curve in curves.items():
            axis.plot(*curve, color=colours[run], marker=".", label=run)
        axis.set(title=f"{metric} (%)", xlabel="iteration")
    for axis in axes:
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize="small")
    return figure
