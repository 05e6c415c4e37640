"""Label maps in colour, beside each other, with a legend."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

IGNORED = (0.85, 0.85, 0.85)
# Room for one entry of the legend, inches.
LEGEND_WIDTH = 2.9
# Name, colour, whether it is unseen.
LegendEntry = tuple[str, tuple, bool]


def class_colours(number: int) -> np.ndarray:
    """Colours (number, 3) in 0..1, each as far as CIELAB has it from white, void and all before."""
    steps = np.linspace(0, 1, 12, dtype=np.float32)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    readable = (lab[:, 0] > 30) & (lab[:, 0] < 90)
    candidates, lab = candidates[readable], lab[readable]
    taken = _lab(np.array([IGNORED, (1, 1, 1)], np.float32))
    distance = np.linalg.norm(lab[:, None] - taken, axis=-1).min(axis=1)
    chosen = []
    for _ in range(number):
        best = int(distance.argmax())
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=-1))
    return np.array(chosen, dtype=float).reshape(number, 3)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """RGB (N, 3), float32 in 0..1, -> CIELAB (N, 3)."""
    return cv2.cvtColor(rgb[None], cv2.COLOR_RGB2LAB)[0]


def colourise(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint labels (H, W) -> (H, W, 3) in 0..1; what is no class is grey."""
    lut = np.concatenate([colours, [IGNORED]])
    return lut[np.where(labels < len(colours), labels, len(colours))]


def label_picture(
    photos: Sequence[np.ndarray],
    label_maps: Mapping[str, Sequence[np.ndarray]],
    class_names: Sequence[str],
    unseen_names: Sequence[str],
    row_titles: Sequence[str] = (),
) -> Figure:
    """Photos in the first column, then one column per entry of ``label_maps``.

    Args:
        photos: (H, W, 3) uint8, one per row.
        label_maps: title -> labels (H, W) per row.
        class_names: in the order of their ids; those that occur make the legend.
        unseen_names: set in bold there.
        row_titles: text at the left of each row.
    """
    colours = class_colours(len(class_names))
    columns = {"photo": list(photos)}
    columns |= {title: [colourise(x, colours) for x in maps] for title, maps in label_maps.items()}
    shown = np.unique(np.concatenate([x.ravel() for maps in label_maps.values() for x in maps]))
    legend = [
        (class_names[i], tuple(colours[i]), class_names[i] in unseen_names)
        for i in shown
        if i < len(class_names)
    ]
    return _draw(columns, [*legend, ("void", IGNORED, False)], row_titles)


def _draw(
    columns: Mapping[str, list[np.ndarray]],
    legend: Sequence[LegendEntry],
    row_titles: Sequence[str],
) -> Figure:
    rows = len(next(iter(columns.values())))
    width = max(2.2 * len(columns), 3 * LEGEND_WIDTH)
    legend_columns = int(width / LEGEND_WIDTH)
    legend_rows = -(-len(legend) // legend_columns)
    figure = Figure(figsize=(width, 2.2 * rows + 0.25 * legend_rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set_visible(False)
    for axis, title in zip(axes[:, 0], row_titles, strict=False):
        axis.set_ylabel(title, fontsize="small")
    patches = [
        Patch(color=colour, label=f"{name} (unseen)" if unseen else name)
        for name, colour, unseen in legend
    ]
    box = figure.legend(
        handles=patches, loc="outside lower center", ncols=legend_columns, fontsize="small"
    )
    for text, (_, _, unseen) in zip(box.get_texts(), legend, strict=True):
        text.set_fontweight("bold" if unseen else "normal")
    return figure


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
