"""Scenes of the mini world, for those who have no image at hand."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from zss_d2.data.synthetic.mini import CLASSES, draw_scene

# Of the val split, whose pixels nothing was trained with.
_INDICES = (0, 1, 2, 3, 5, 8)
# Words that are in the text beside those of what the scene shows.
_OTHERS = ("grass", "brick", "water")


class Example(NamedTuple):
    """An image file and words for it, one per line."""

    image: Path
    words: str


def draw_examples(folder: Path) -> list[Example]:
    """Draw scenes into a folder."""
    examples = []
    for index in _INDICES:
        scene = draw_scene("val", index)
        words = dict.fromkeys([*(CLASSES[i] for i in scene.classes), *_OTHERS])
        path = folder / f"scene_{index}.png"
        Image.fromarray(scene.image).save(path)
        examples.append(Example(path, "\n".join(words)))
    return examples
