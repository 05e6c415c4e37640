"""Figures as the content of files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

# Height of a row of images, as a share of the width of a column: of panoramas, of tall images.
_LEAST_ASPECT, _MOST_ASPECT = 0.3, 1.6


def image_grid(
    sizes: Sequence[tuple[int, int]],
    columns: int,
    width: float,
    margin: float = 0.0,
    left: float = 0.0,
) -> tuple[Figure, np.ndarray]:
    """A figure with a row for each image, as high as the image is in a column, and its axes.

    Args:
        sizes: (height, width) of the images, px.
        columns: number of them.
        width: of a column, inches.
        margin: height beside the rows, inches.
        left: width beside the columns, inches.

    Returns:
        the figure, and axes (rows, columns) without ticks and frames.
    """
    heights = [
        width * float(np.clip(height / wide, _LEAST_ASPECT, _MOST_ASPECT)) for height, wide in sizes
    ]
    # Room between two images, on all sides of which is half of it.
    gap = 0.06
    size = (left + columns * (width + gap), sum(heights) + gap * len(heights) + margin)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=gap / 2, h_pad=gap / 2, wspace=0, hspace=0)
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(heights), columns, squeeze=False, gridspec_kw=ratios)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def encode(figure: Figure, form: str = "png", dpi: int = 120) -> bytes:
    """The figure as the content of a file; ``form`` is one of Matplotlib's formats."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dpi)
    return buffer.getvalue()
