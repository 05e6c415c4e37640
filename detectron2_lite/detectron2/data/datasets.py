"""Records of data sets in well-known layouts."""

from __future__ import annotations

import logging
import os

from detectron2.utils.file_io import PathManager


def _files_by_stem(folder: str, extension: str) -> dict[str, str]:
    return {
        name[: -len(extension)].rstrip("."): os.path.join(folder, name)
        for name in PathManager.ls(folder)
        if name.endswith(extension)
    }


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, str]]:
    """Pair the files of two flat folders by name without extension; warns of unpaired ones.

    Returns:
        Records with "file_name" and "sem_seg_file_name", sorted by name.

    Raises:
        AssertionError: no file in ``gt_root`` ends in ``gt_ext``.
    """
    masks = _files_by_stem(gt_root, gt_ext)
    images = _files_by_stem(image_root, image_ext)
    assert masks, f"no *{gt_ext} file in {gt_root}"
    paired = sorted(masks.keys() & images.keys())
    if len(paired) < max(len(masks), len(images)):
        logging.getLogger(__name__).warning(
            "%d masks in %s and %d images in %s: using the %d that have both",
            *(len(masks), gt_root, len(images), image_root, len(paired)),
        )
    return [{"file_name": images[name], "sem_seg_file_name": masks[name]} for name in paired]
