"""Registers every benchmark split with Detectron2 as ``zss_<benchmark>_<split>``.

Prepared data lies under the folder that the environment variable DETECTRON2_DATASETS names
(``datasets`` if unset)::

    zss/<benchmark>/images/<split folder>/ID.jpg
    zss/<benchmark>/annotations/<split folder>/ID.png     values 0..K-1 and the ignore label
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import log_first_n

from zss_d2.data.benchmark import Benchmark, Split, available_benchmarks, load_benchmark
from zss_d2.errors import ZssError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIXES = (".png",)


def datasets_root() -> Path:
    """Return the folder of all data sets, as the environment says now."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def prepared_root(benchmark: Benchmark) -> Path:
    """Return the default folder of a prepared benchmark."""
    return datasets_root() / "zss" / benchmark.name


def split_folders(root: Path, split: Split) -> tuple[Path, Path]:
    """Return the image and the annotation folder of ``split`` in the prepared tree ``root``."""
    return root / "images" / split.folder, root / "annotations" / split.folder


def dataset_name(benchmark: Benchmark, split: Split) -> str:
    return f"zss_{benchmark.name}_{split.name}"


def register_all() -> None:
    """Register the splits of every spec in the package."""
    for name in available_benchmarks():
        register_benchmark(load_benchmark(name))


def register_benchmark(benchmark: Benchmark) -> None:
    """Register the splits of ``benchmark``; doing so again replaces the earlier registration."""
    for split in benchmark.splits.values():
        name = dataset_name(benchmark, split)
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        DatasetCatalog.register(name, functools.partial(_load, benchmark, split))
        _publish_metadata(benchmark, split)


def _load(benchmark: Benchmark, split: Split) -> list[dict[str, str]]:
    # The environment may have changed since registration, and with it the folders.
    _publish_metadata(benchmark, split)
    records = load_records(benchmark, split, prepared_root(benchmark))
    if len(records) != split.expected_images:
        log_first_n(
            logging.WARNING,
            f"{dataset_name(benchmark, split)} holds {len(records)} images, the benchmark "
            f"{split.expected_images}: scores cannot be compared with published ones",
            key="message",
        )
    return records


def _publish_metadata(benchmark: Benchmark, split: Split) -> None:
    name = dataset_name(benchmark, split)
    image_root, sem_seg_root = split_folders(prepared_root(benchmark), split)
    facts = {
        "stuff_classes": list(benchmark.classes),
        "seen_classes": list(benchmark.seen_names),
        "unseen_classes": list(benchmark.unseen_names),
        "ignore_label": benchmark.ignore_label,
        "evaluator_type": "sem_seg",
        "benchmark": benchmark.name,
        "image_root": str(image_root),
        "sem_seg_root": str(sem_seg_root),
    }
    if name in MetadataCatalog.list():
        known = MetadataCatalog.get(name)
        if all(known.get(key) == value for key, value in facts.items()):
            return
        # Metadata refuses changed values, so a changed entry is made anew.
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**facts)


def load_records(benchmark: Benchmark, split: Split, root: Path) -> list[dict[str, str]]:
    """Pair the images and masks of a prepared split.

    Args:
        root: the folder that holds ``images`` and ``annotations``.

    Returns:
        Records sorted by id: ``file_name``, ``sem_seg_file_name``, ``image_id``, ``dataset_name``.

    Raises:
        ZssError: a folder is missing or empty, or an image or a mask lacks its partner.
    """
    remedy = (
        f"run `python datasets/prepare_{benchmark.name}.py`, or let DETECTRON2_DATASETS name the "
        f"folder that holds zss/{benchmark.name}"
    )
    image_root, mask_root = split_folders(root, split)
    for folder in (image_root, mask_root):
        if not folder.is_dir():
            raise ZssError(f"{folder}: no such folder; {remedy}")
    images = files_by_id(image_root, IMAGE_SUFFIXES)
    masks = files_by_id(mask_root, MASK_SUFFIXES)
    if not images:
        raise ZssError(f"{image_root}: the folder holds no image; {remedy}")
    without_mask = sorted(images.keys() - masks.keys())
    if without_mask:
        raise ZssError(f"{mask_root}: no mask for {summarise(without_mask)}; {remedy}")
    without_image = sorted(masks.keys() - images.keys())
    if without_image:
        raise ZssError(
            f"{image_root}: no image, or a link to a file that is gone, for "
            f"{summarise(without_image)}; {remedy}"
        )
    name = dataset_name(benchmark, split)
    return [
        {
            "file_name": str(images[image_id]),
            "sem_seg_file_name": str(masks[image_id]),
            "image_id": image_id,
            "dataset_name": name,
        }
        for image_id in sorted(images)
    ]


def summarise(names: list[str], shown: int = 5) -> str:
    """Return the number of names and the first few of them."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} ({', '.join(names[:shown])}{more})"


def files_by_id(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return {stem: path} of the files in ``folder`` that have such a suffix and can be opened."""
    with os.scandir(folder) as entries:
        paths = [Path(entry.path) for entry in entries if entry.is_file()]
    return {path.stem: path for path in paths if path.suffix.lower() in suffixes}
