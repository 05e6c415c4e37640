"""Generated photos with masks, in files, for benchmarks that read some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def generate(
    images: Path, masks: Path, number: int, classes: int, size: tuple[int, int] = (640, 480)
) -> list[tuple[Path, Path]]:
    """Write JPEG images and PNG masks of up to a dozen classes each, the same every time.

    Args:
        images, masks: folders.
        classes: labels are 0..classes-1.
        size: width and height, px.

    Returns:
        the pairs of files.
    """
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for index in range(number):
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(float)
        image += rng.normal(0, 10, image.shape)
        shown = rng.integers(0, classes, 12).astype(np.uint8)
        cells = shown[rng.integers(0, 12, (6, 8))]
        mask = cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)
        pair = images / f"{index:012d}.jpg", masks / f"{index:012d}.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(pair[0], quality=92)
        Image.fromarray(mask).save(pair[1])
        pairs.append(pair)
    return pairs
