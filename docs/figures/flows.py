"""Draws how data flows through each method.

python docs/figures/flows.py
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

IMAGES = Path(__file__).parents[1] / "images"
# What a box is: its colour.
KINDS = {
    "data": "#F2F4F7",  # images, words, labels
    "frozen": "#CFE6F5",  # parts of CLIP
    "trained": "#FBD9A8",  # parts that are trained
    "loss": "#F3C6D2",
}
HEIGHT = 0.62


class Box(NamedTuple):
    """A box around (x, y), inches from the lower left corner."""

    x: float
    y: float
    text: str
    kind: str = "data"
    width: float = 1.5


class Flow(NamedTuple):
    """Boxes by name, and arrows between them: (from, to, what flows)."""

    boxes: dict[str, Box]
    arrows: tuple[tuple[str, str, str], ...]
    size: tuple[float, float]


FLOWS = {
    "training_free": Flow(
        {
            "image": Box(0.9, 2.3, "image"),
            "words": Box(0.9, 0.9, "words"),
            "blocks": Box(3.0, 2.3, "CLIP's first\nblocks", "frozen"),
            "last": Box(5.2, 2.3, "last block(s) with\nanother attention", "frozen", 1.8),
            "text": Box(3.0, 0.9, "CLIP's text tower", "frozen", 1.7),
            "cos": Box(7.6, 1.6, "nearest word\nof every token", width=1.6),
        },
        (
            ("image", "blocks", ""),
            ("blocks", "last", "tokens"),
            ("words", "text", ""),
            ("last", "cos", "dense tokens"),
            ("text", "cos", "class embeddings"),
        ),
        (8.7, 3.1),
    ),
    "zegclip": Flow(
        {
            "image": Box(0.9, 3.0, "image"),
            "words": Box(0.9, 0.9, "words"),
            "tower": Box(3.0, 3.0, "CLIP's image tower\n+ deep prompts", "frozen", 1.8),
            "text": Box(3.0, 0.9, "CLIP's text tower", "frozen", 1.8),
            "adapter": Box(5.2, 0.9, "relation\ndescriptor", "trained"),
            "decoder": Box(7.6, 1.9, "decoder: classes ask,\ntokens answer", "trained", 1.9),
            "masks": Box(10.0, 1.9, "a mask per class"),
            "loss": Box(10.0, 0.6, "focal + dice", "loss"),
        },
        (
            ("image", "tower", ""),
            ("words", "text", ""),
            ("text", "adapter", "T"),
            ("tower", "adapter", "CLS"),
            ("tower", "decoder", "dense tokens: keys, values"),
            ("adapter", "decoder", "queries"),
            ("decoder", "masks", "Q K"),
            ("masks", "loss", ""),
        ),
        (11.1, 3.7),
    ),
    "ldvc": Flow(
        {
            "image": Box(0.9, 3.0, "image"),
            "words": Box(0.9, 0.9, "words"),
            "tower": Box(3.0, 3.0, "CLIP's image tower\n+ deep prompts", "frozen", 1.8),
            "text": Box(3.0, 0.9, "CLIP's text tower\n+ prompts", "frozen", 1.8),
            "adapter": Box(5.2, 0.9, "text adapter", "trained"),
            "route": Box(5.7, 3.0, "route attention\namong tokens", "trained", 1.6),
            "cross": Box(7.9, 3.0, "cross-attention:\ntokens ask, classes\nanswer", "trained", 1.8),
            "masks": Box(10.2, 1.9, "cos(token, class)", width=1.6),
            "loss": Box(10.2, 0.6, "focal + dice", "loss"),
        },
        (
            ("image", "tower", ""),
            ("words", "text", ""),
            ("text", "adapter", "T"),
            ("tower", "adapter", "CLS"),
            ("tower", "route", "dense"),
            ("route", "cross", ""),
            ("adapter", "cross", "anchors"),
            ("adapter", "masks", "anchors"),
            ("cross", "masks", "moved tokens"),
            ("masks", "loss", ""),
        ),
        (11.3, 3.8),
    ),
    "clip_zss": Flow(
        {
            "image": Box(0.9, 2.7, "image"),
            "student": Box(3.0, 3.8, "student: any encoder", "trained", 1.9),
            "tower": Box(3.0, 1.6, "CLIP's image tower\n(training only)", "frozen", 1.9),
            "glm": Box(5.6, 2.7, "GLM: which image\nis it?", "loss", 1.7),
            "regions": Box(5.6, 0.7, "K-Means: regions\nwithout a label", width=1.7),
            "synth": Box(8.0, 1.6, "synthesizer: a word\nfor each region", "trained", 1.9),
            "pixels": Box(10.5, 2.7, "pixel losses, of seen\nlabels and regions", "loss", 1.9),
            "words": Box(8.0, 4.6, "embeddings of words"),
            "labels": Box(10.5, 3.8, "nearest word\nof every pixel", width=1.9),
        },
        (
            ("image", "student", ""),
            ("image", "tower", ""),
            ("student", "glm", "R"),
            ("tower", "glm", "CLS"),
            ("tower", "regions", "dense"),
            ("regions", "synth", "masks"),
            ("tower", "synth", "CLS"),
            ("synth", "pixels", "prototypes"),
            ("student", "labels", "R: all that a test needs"),
            ("words", "labels", ""),
            ("labels", "pixels", ""),
        ),
        (11.6, 5.1),
    ),
}


def draw(flow: Flow) -> Figure:
    """Boxes and arrows, with a legend of the kinds that occur."""
    width, height = flow.size
    figure = Figure(figsize=(width, height + 0.35))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(-0.35, height))
    axis.set_axis_off()
    for box in flow.boxes.values():
        rows = 1 + box.text.count("\n")
        tall = HEIGHT + 0.2 * max(rows - 2, 0)
        corner = (box.x - box.width / 2, box.y - tall / 2)
        style = "round,pad=0,rounding_size=0.08"
        axis.add_patch(
            FancyBboxPatch(corner, box.width, tall, boxstyle=style, fc=KINDS[box.kind], ec="0.45")
        )
        axis.text(box.x, box.y, box.text, ha="center", va="center", fontsize=9.5, linespacing=1.15)
    for start, end, text in flow.arrows:
        _arrow(axis, flow.boxes[start], flow.boxes[end], text)
    names = {"data": "data", "frozen": "frozen CLIP", "trained": "trained", "loss": "loss"}
    used = {box.kind for box in flow.boxes.values()}
    place = 0.3
    for kind, colour in KINDS.items():
        if kind not in used:
            continue
        axis.add_patch(Rectangle((place, -0.2), 0.22, 0.16, fc=colour, ec="0.45", lw=0.6))
        axis.text(place + 0.36, -0.12, names[kind], va="center", fontsize=8.5, color="0.3")
        place += 1.35
    return figure


def _arrow(axis, start: Box, end: Box, text: str) -> None:
    """From the nearer side of one box to that of the other; the text lies on it."""
    across = abs(end.x - start.x) - (start.width + end.width) / 2 > 0.1
    if across:
        side = 1 if end.x > start.x else -1
        tail, tip = (
            (start.x + side * start.width / 2, start.y),
            (end.x - side * end.width / 2, end.y),
        )
    else:
        side = 1 if end.y > start.y else -1
        tall = [HEIGHT + 0.2 * max(box.text.count("\n") - 1, 0) for box in (start, end)]
        tail, tip = (start.x, start.y + side * tall[0] / 2), (end.x, end.y - side * tall[1] / 2)
    axis.add_patch(
        FancyArrowPatch(tail, tip, arrowstyle="-|>", mutation_scale=11, color="0.35", lw=1.1)
    )
    if text:
        middle = ((tail[0] + tip[0]) / 2, (tail[1] + tip[1]) / 2)
        axis.text(
            *middle,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color="0.25",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


if __name__ == "__main__":
    for name, flow in FLOWS.items():
        draw(flow).savefig(IMAGES / f"flow_{name}.png", dpi=100)
