"""Custom datasets: folders of images and masks, described by a small yaml file::

name: yard                       # registered as zss_yard_train, zss_yard_val
classes: [ground, disc, stripe]  # the order gives the ids 0, 1, 2
unseen: [stripe]
ignore_label: 255                # void pixels; 255 if left out
things: [disc]                   # optional, for the scores of things and stuff
raw_to_train: {10: ground, 20: disc, 30: stripe, 0: 255}   # optional, if masks hold other ids
splits:
  train: {images: photos, masks: masks, list: train.txt}   # relative to this file; ~ and $NAME work
  val: {images: photos, masks: masks, list: val.txt}       # list: optional

or views of a data set (`zss_d2.data.spec.views`), with the splits of that::

name: yard_fold                  # registered as zss_yard_fold_train, zss_yard_fold_val
base: yard.yaml                  # such a description, or the name of a benchmark of the package
unseen: [disc]                   # unseen here, all others are seen; or, for choosing settings,
hold_out: [disc]                 # unseen here, while what is unseen in the base is void
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from zss_d2.data.files.images import require_folder
from zss_d2.data.files.listing import Location
from zss_d2.data.files.lists import read_id_list
from zss_d2.data.spec.benchmark import Benchmark, available_benchmarks, load_benchmark
from zss_d2.data.spec.locations import dataset_name, prepared_location
from zss_d2.data.spec.registry import register_split
from zss_d2.data.spec.schema import (
    DatasetSpec,
    SplitSpec,
    ViewSpec,
    closest,
    read_spec,
    wrong,
)
from zss_d2.data.spec.views import hold_out, split_anew, without_unseen
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Custom:
    """A custom dataset: its classes, and where the files of its splits lie.

    ``base`` is the name of the data set that a view shows.
    """

    benchmark: Benchmark
    locations: Mapping[str, Location]
    base: str = ""

    def dataset_shown(self, dataset: str) -> str:
        """Return the registered name under which this view shows ``dataset``, a split of its base.

        Raises ZssError for another data set.
        """
        split = dataset.removeprefix(f"zss_{self.base}_")
        if not self.base or split not in self.benchmark.splits:
            raise ZssError(
                f"{self.benchmark.sources[0]}: is no view of {dataset}; give one that names it as "
                "'base'"
            )
        return dataset_name(self.benchmark, self.benchmark.splits[split])


def register_custom(paths: Iterable[str | Path]) -> None:
    """Register the splits of every description; again replaces.

    To be called in every process before its data sets are used.

    Raises ZssError naming the file, the key and the remedy.
    """
    for path in paths:
        custom = load_custom(path)
        for split in custom.benchmark.splits.values():
            locate = functools.partial(custom.locations.get, split.name)
            register_split(custom.benchmark, split, locate)


def load_custom(path: str | Path) -> Custom:
    """Read and validate a description; raises ZssError naming the file and the key."""
    path = Path(path)
    spec = read_spec(path)
    if spec.name in available_benchmarks():
        raise wrong(
            path, "name", f"{spec.name!r} is a benchmark of the package; choose another name"
        )
    return _view(path, spec) if isinstance(spec, ViewSpec) else _dataset(path, spec)


def _dataset(path: Path, spec: DatasetSpec) -> Custom:
    benchmark = Benchmark.of_spec(spec)
    benchmark = dataclasses.replace(benchmark, sources=(str(path), *benchmark.sources))
    locations = {
        name: prepared_location(benchmark, benchmark.splits[name])
        if split.folder
        else _location(path, spec, name, split)
        for name, split in spec.splits.items()
    }
    return Custom(benchmark, locations)


def _location(path: Path, spec: DatasetSpec, name: str, split: SplitSpec) -> Location:
    images, masks = (_path_of(path, text) for text in (split.images, split.masks))
    remedy = f"correct splits.{name} in {path}"
    for folder in (images, masks):
        require_folder(folder, remedy)
    ids = tuple(read_id_list(_path_of(path, split.id_list), images)) if split.id_list else None
    mask_remedy = (
        f"correct the mask, or say in {path} what raw_to_train makes of the value"
        if spec.raw_to_train
        else f"correct the mask, or give raw_to_train in {path}, or correct classes or "
        "ignore_label there"
    )
    return Location(
        images,
        masks,
        remedy,
        ids,
        spec.raw_to_train,
        mask_remedy,
        split.image_endings,
        split.mask_endings,
        split.subfolders,
    )


def _path_of(path: Path, text: str) -> Path:
    """Return a path that is written in the description ``path``, and relative to that."""
    return path.parent / Path(os.path.expandvars(text)).expanduser()


def _view(path: Path, spec: ViewSpec) -> Custom:
    base = _base(path, spec.base)
    shown, locations = base.benchmark, base.locations
    if spec.unseen is not None:
        _require_some(path, "unseen", spec.unseen, "class", shown.classes, shown)
        benchmark = split_anew(shown, spec.unseen)
    else:
        _require_some(path, "hold_out", spec.hold_out, "seen class", shown.seen_names, shown)
        benchmark = hold_out(shown, spec.hold_out)
        locations = {name: without_unseen(shown, where) for name, where in locations.items()}
    # The raw ids of a view are those of its base, which need not be what the masks hold.
    benchmark = dataclasses.replace(
        benchmark,
        name=spec.name,
        title=spec.title or spec.name,
        sources=(str(path), *shown.sources),
    )
    return Custom(benchmark, locations, shown.name)


def _base(path: Path, named: str) -> Custom:
    """Return the data set of that name or description."""
    if not named.endswith((".yaml", ".yml")):
        try:
            benchmark = load_benchmark(named)
        except ZssError as error:
            raise wrong(path, "base", error) from None
        splits = benchmark.splits.items()
        return Custom(benchmark, {name: prepared_location(benchmark, x) for name, x in splits})
    there = _path_of(path, named)
    spec = read_spec(there)
    if isinstance(spec, ViewSpec):
        problem = f"{named} is a view itself; name the data set that it shows"
        raise wrong(path, "base", problem)
    return _dataset(there, spec)


def _require_some(
    path: Path,
    key: str,
    names: Collection[str],
    kind: str,
    known: Collection[str],
    base: Benchmark,
) -> None:
    """Raise ZssError unless the names are some, not all, of those known."""
    for name in names:
        if name not in known:
            near = closest(name, known)
            raise wrong(path, key, f"{name!r} is no {kind} of {base.name}{near}")
    if len(names) == len(known):
        raise wrong(path, key, f"every {kind} is named; leave some for training")
