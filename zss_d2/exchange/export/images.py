"""Images that a file is compared with its model on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.config import CfgNode
from PIL import Image

from zss_d2.data.pipeline.mapper import inference_augmentations
from zss_d2.errors import ZssError
from zss_d2.predict.decode import load_image


def check_images(
    paths: Sequence[str], cfg: CfgNode, size: tuple[int, int] | None, least: int
) -> list[np.ndarray]:
    """Images (H, W, 3) uint8, RGB, of files.

    Args:
        size: height and width that they are brought to; None: as in an evaluation of ``cfg``.
        least: side, px, that they must have then.

    Raises:
        ZssError: one cannot be read or is too small.
    """
    images = []
    for path in paths:
        image = load_image(path)
        if size is not None:
            resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        else:
            for resize in inference_augmentations(cfg):
                image = resize.get_transform(image).apply_image(image)
            if min(image.shape[:2]) < least:
                raise ZssError(f"--check {path}: sides of less than {least} px are not taken")
        images.append(image)
    return images


def made_up_images(sizes: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 of soft coloured patches under noise, the same ones every time."""
    random = np.random.default_rng(0)
    images = []
    for height, width in sizes:
        patches = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), float)
        noisy = smooth + random.normal(0, 12, smooth.shape)
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return images
