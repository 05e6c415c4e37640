"""Where prepared data lies, and what its splits are called; nothing here needs Detectron2.

Prepared data lies under the folder that the environment variable DETECTRON2_DATASETS names
(``datasets`` if unset)::

    zss/<benchmark>/images/<split folder>/ID.jpg
    zss/<benchmark>/annotations/<split folder>/ID.png     values 0..K-1 and the ignore label

Other benchmarks need no preparation: their originals, below the same folder, are read as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

from zss_d2.data.files.encoding import MaskEncoding
from zss_d2.data.files.listing import Location
from zss_d2.data.spec.benchmark import Benchmark, Split
from zss_d2.utils.installation import checkout


def datasets_root() -> Path:
    """Return the folder of all data sets, as the environment says now."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


def prepared_root(benchmark: Benchmark) -> Path:
    """Return the default folder of a prepared benchmark."""
    return datasets_root() / "zss" / benchmark.name


def split_folders(root: Path, split: Split) -> tuple[Path, Path]:
    """Return the image and the annotation folder of ``split`` in the prepared tree ``root``."""
    return root / "images" / split.folder, root / "annotations" / split.folder


def prepare_command(benchmark: Benchmark) -> str:
    """Return the command that prepares a benchmark, as it is given in a checkout or elsewhere."""
    if checkout():
        return f"python datasets/{benchmark.prepare_script}"
    script, *options = benchmark.prepare_script.split()
    name = script.removeprefix("prepare_").removesuffix(".py")
    return " ".join(["zss prepare", name, *options])


def prepared_location(benchmark: Benchmark, split: Split, root: Path | None = None) -> Location:
    """Return the location of a split of a benchmark, below DETECTRON2_DATASETS as it is.

    Args:
        root: the prepared tree, if it lies elsewhere.
    """
    script = f"`{prepare_command(benchmark)}`"
    if place := split.place:
        return Location(
            datasets_root() / place.images,
            datasets_root() / place.masks,
            remedy=f"run {script}, which says what is missing and where it comes from, or let "
            f"DETECTRON2_DATASETS name the folder that holds {place.images.split('/')[0]}",
            raw_to_train=benchmark.raw_to_train,
            mask_remedy="fetch the original mask again",
            image_endings=place.image_endings,
            mask_endings=place.mask_endings,
            subfolders=place.subfolders,
        )
    return Location(
        *split_folders(root or prepared_root(benchmark), split),
        remedy=f"run {script}, or let DETECTRON2_DATASETS name the folder that holds "
        f"zss/{benchmark.name}",
        mask_remedy=f"move that prepared copy elsewhere and run {script}, which makes it anew; if "
        "it has no original, correct it",
    )


def mask_encoding(benchmark: Benchmark, location: Location) -> MaskEncoding:
    """Return what the masks at a location of the benchmark hold."""
    return MaskEncoding(
        len(benchmark.classes), benchmark.ignore_label, location.raw_to_train, location.mask_remedy
    )


def dataset_name(benchmark: Benchmark, split: Split) -> str:
    return f"zss_{benchmark.name}_{split.name}"
