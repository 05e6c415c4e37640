"""Label maps in colour, beside each other, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from zss_d2.drawing.colours import IGNORED, class_colours, colourise
from zss_d2.drawing.figures import image_grid
from zss_d2.drawing.lettering import class_labels, drawn_title, legend, style
from zss_d2.utils.text import wrapped

# Room for one entry of the legend, more if letters of that width need it, inches.
LEGEND_WIDTH = 2.9
LETTER_WIDTH = 0.076
# Letters of a title above a column.
TITLE_WIDTH = 20
# Name, colour, whether it is unseen.
LegendEntry = tuple[str, tuple, bool]


def label_picture(
    images: Sequence[np.ndarray],
    columns: Sequence[tuple[str, Sequence[np.ndarray]]],
    class_names: Sequence[str],
    unseen_names: Sequence[str],
    row_titles: Sequence[str] = (),
    class_colors: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """Images in the first column, then one column per entry of ``columns``.

    Args:
        images: (H, W, 3) uint8, one per row.
        columns: title and labels (H, W) per row.
        class_names: in the order of their ids; those that occur make the legend.
        unseen_names: set in bold there.
        row_titles: text at the left of each row.
        class_colors: colours that the data set gives classes, RGB in 0..255.
    """
    colours, labels = class_colours(class_names, class_colors), class_labels(class_names)
    painted = [(title, [colourise(x, colours) for x in maps]) for title, maps in columns]
    shown = np.unique(np.concatenate([x.ravel() for _, maps in columns for x in maps]))
    entries = [
        (labels[i], tuple(colours[i]), class_names[i] in unseen_names)
        for i in shown
        if i < len(labels)
    ]
    nothing = "unlabelled" if "void" in labels else "void"
    return _draw(
        [("image", list(images)), *painted], [*entries, (nothing, IGNORED, False)], row_titles
    )


def _draw(
    columns: Sequence[tuple[str, list[np.ndarray]]],
    entries: Sequence[LegendEntry],
    row_titles: Sequence[str],
) -> Figure:
    width = max(2.2 * len(columns), 3 * LEGEND_WIDTH)
    names = [f"{name} (unseen)" if unseen else name for name, _, unseen in entries]
    entry_width = max(LEGEND_WIDTH, 0.6 + LETTER_WIDTH * max(map(len, names)))
    legend_columns = max(int(width / entry_width), 1)
    legend_rows = -(-len(entries) // legend_columns)
    titles = [wrapped(drawn_title(title), TITLE_WIDTH) for title, _ in columns]
    title_rows = 1 + max(title.count("\n") for title in titles)
    margin = 0.25 * legend_rows + 0.2 * (1 + title_rows)
    sizes = [image.shape[:2] for image in columns[0][1]]
    left = 0.4 if row_titles else 0.0
    figure, axes = image_grid(sizes, len(columns), width / len(columns), margin, left)
    for column, (title, (_, images)) in enumerate(zip(titles, columns, strict=True)):
        axes[0, column].set_title(title, **style([title]))
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
    for axis, title in zip(axes[:, 0], row_titles, strict=False):
        axis.set_ylabel(title, fontsize="small")
    box = legend(
        figure,
        [Patch(color=colour) for _, colour, _ in entries],
        names,
        loc="outside lower center",
        ncols=legend_columns,
        fontsize="small",
    )
    for text, (_, _, unseen) in zip(box.get_texts(), entries, strict=True):
        text.set_fontweight("bold" if unseen else "normal")
    return figure
