"""From the counts of a test set to metrics of the shape of regions, for groups of classes.

As with IoU, counts are added over images first, then divided class by class, then averaged over the
classes of a group that the ground truth has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from zss_d2.evaluation.metrics import mean_over_present
from zss_d2.evaluation.shape.counts import COLUMNS

# Metric: (numerator, denominator, factor). Of the first two 1 is ideal, the others are in percent.
RATIOS = {
    "fragments": ("fragments", "regions", 1),
    "pieces": ("pieces", "regions", 1),
    "consistency": ("majority_px", "region_px", 100),
    "right-majority": ("right_majority_px", "region_px", 100),
    "stray-px": ("stray_px", "predicted_px", 100),
    "mBIoU": ("boundary_both", "boundary_either", 100),
}
# A number per image, of all classes of a group together.
STRAYS = "strays"
# Those that are no percentages.
NUMBERS = ("fragments", "pieces", STRAYS)
# Classes that a metric is of, and what its name ends in then.
GROUPS = {"all": "", "seen": "-S", "unseen": "-U"}
LEGEND = (
    "fragments: connected pieces of a class per region of it in the ground truth; pieces: those of "
    "any class that a region is cut into; consistency: % of regions' pixels with the most frequent "
    "label of their region; right-majority: % of them in regions where that is the right one; "
    "strays: fragments without a pixel of their class in the ground truth, per image; stray-px: % "
    "of predicted pixels in them; mBIoU: boundary IoU, %. Best: 1, 1, 100, 100, 0, 0, 100."
)
METRICS = ("fragments", "pieces", "consistency", "right-majority", STRAYS, "stray-px", "mBIoU")


def class_ratios(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`RATIOS` of every class (K,) from counts (K, columns); NaN where the truth lacks the class.

    `stray-px` is also NaN for a class that is never predicted.
    """
    column = {name: counts[:, index].astype(float) for index, name in enumerate(COLUMNS)}
    present = column["regions"] > 0
    ratios = {}
    for name, (above, below, factor) in RATIOS.items():
        values = np.full(len(counts), np.nan)
        np.divide(
            factor * column[above], column[below], out=values, where=present & (column[below] > 0)
        )
        ratios[name] = values
    return ratios


def summarise_shape(
    counts: np.ndarray, num_images: int, class_names: Sequence[str], unseen_names: Sequence[str]
) -> dict[str, float]:
    """`METRICS` of all classes, and with the suffixes -S and -U of the seen and the unseen ones.

    Args:
        counts: (K, columns), those of `shape_counts` added over the test set.
        num_images: that they are of.

    Returns:
        NaN for what no class of a group has.
    """
    everything = list(range(len(class_names)))
    unseen = [i for i in everything if class_names[i] in unseen_names]
    seen = [i for i in everything if i not in unseen]
    groups = dict(zip(GROUPS.values(), (everything, seen, unseen), strict=True))
    ratios = class_ratios(counts)
    strays = counts[:, COLUMNS.index("strays")]
    metrics = {
        f"{name}{group}": mean_over_present(values, ids)
        for name, values in ratios.items()
        for group, ids in groups.items()
    }
    for group, ids in groups.items():
        metrics[f"{STRAYS}{group}"] = strays[ids].sum() / num_images if ids else float("nan")
    return {key: float(value) for key, value in metrics.items()}


def shape_rows(metrics: Mapping[str, float | None]) -> list[list[str]]:
    """A table of `METRICS`: headers, then a row each for all, the seen and the unseen classes.

    Empty where none of them was measured. A dash stands for what is undefined.
    """
    if not is_measured(metrics):
        return []

    return [["classes", *METRICS]] + [
        [group, *(in_text(metrics[f"{name}{suffix}"], name) for name in METRICS)]
        for group, suffix in GROUPS.items()
    ]


def in_text(value: float | None, name: str) -> str:
    """The value of a metric; "-": undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits(name)}f}"


def digits(name: str) -> int:
    """Decimals that a metric, of whatever group, is shown with: ratios have two, percent one."""
    small = any(name.removesuffix(group) in NUMBERS for group in ("-S", "-U"))
    return 2 if small else 1


def is_measured(metrics: Mapping[str, float | None]) -> bool:
    """Whether results of a test set hold `METRICS`; those of earlier versions do not."""
    return all(f"{name}{group}" in metrics for name in METRICS for group in GROUPS.values())
