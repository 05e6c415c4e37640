"""An image, its labels and what was predicted, beside each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from PIL import Image

from zss_d2.drawing.colours import IGNORED, class_colours, colourise
from zss_d2.drawing.legend import LegendEntry, legend_strip
from zss_d2.drawing.lettering import class_labels

# Longer side of each of the three, and what lies between them, px.
SIDE, GAP = 256, 4


def compare(
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    unseen_names: Collection[str],
    class_colors: Mapping[str, Sequence[int]] | None = None,
) -> np.ndarray:
    """Image | ground truth | prediction, with a legend of the classes in either below.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth, predicted: (H, W), indices of classes; anything else is drawn as void.
        class_names: in the order of their indices, from which their colours follow.
        unseen_names: said in the legend.
        class_colors: colours that the data set gives classes, RGB in 0..255.

    Returns:
        (h, w, 3) uint8, RGB, each part `SIDE` px long.
    """
    colours = class_colours(class_names, class_colors)
    scale = SIDE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    painted = [_bytes(colourise(labels, colours)) for labels in (truth, predicted)]
    labels = class_labels(class_names)
    shown = np.union1d(truth, predicted)
    entries = [
        LegendEntry(
            labels[index],
            "unseen" if class_names[index] in unseen_names else "",
            tuple(_bytes(colours[index]).tolist()),
        )
        for index in shown[(shown >= 0) & (shown < len(labels))]
    ]
    entries.append(LegendEntry("no label", "", tuple(_bytes(np.array(IGNORED)).tolist())))
    legend = legend_strip(entries, 3 * width + 2 * GAP)
    picture = Image.new("RGB", (legend.width, height + legend.height), (255, 255, 255))
    for number, part in enumerate((image, *painted)):
        # Labels have no colours in between.
        method = Image.Resampling.NEAREST if number else Image.Resampling.BILINEAR
        scaled = Image.fromarray(part).resize((width, height), method)
        picture.paste(scaled, (number * (width + GAP), 0))
    picture.paste(legend, (0, height))
    return np.asarray(picture)


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Colours in 0..1 as uint8."""
    return (255 * colours).round().astype(np.uint8)
