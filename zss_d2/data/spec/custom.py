"""Data sets of one's own: folders of images and masks, described by a small yaml file::

name: yard                       # registered as zss_yard_train, zss_yard_val
classes: [ground, disc, stripe]  # the order gives the ids 0, 1, 2
unseen: [stripe]
ignore_label: 255                # void pixels; 255 if left out
things: [disc]                   # optional, for the scores of things and stuff
raw_to_train: {10: ground, 20: disc, 30: stripe, 0: 255}   # optional, if masks hold other ids
splits:
  train: {images: photos, masks: masks, list: train.txt}   # relative to this file; ~ and $NAME work
  val: {images: photos, masks: masks, list: val.txt}       # list: optional

or views of a data set for choosing settings (`zss_d2.data.spec.heldout`), with the splits of that::

name: yard_fold                  # registered as zss_yard_fold_train, zss_yard_fold_val
base: yard.yaml                  # such a description, or the name of a benchmark of the package
hold_out: [disc]                 # unseen here; what is unseen in the base is void here
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zss_d2.config.yaml_file import read_yaml
from zss_d2.data.files.images import require_folder
from zss_d2.data.files.listing import Location
from zss_d2.data.files.lists import read_id_list
from zss_d2.data.spec.benchmark import (
    Benchmark,
    SpecReader,
    Split,
    available_benchmarks,
    closest,
    load_benchmark,
)
from zss_d2.data.spec.heldout import hold_out, identity, without_unseen
from zss_d2.data.spec.locations import dataset_name, prepared_location
from zss_d2.data.spec.registry import register_split
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

    Raises ZssError naming the file, the line and the remedy.
    """
    for path in paths:
        custom = load_custom(path)
        for split in custom.benchmark.splits.values():
            locate = functools.partial(custom.locations.get, split.name)
            register_split(custom.benchmark, split, locate)


def load_custom(path: str | Path) -> Custom:
    """Read and validate a description; raises ZssError naming the file and the line."""
    reader = _read(Path(path))
    return reader.view() if reader.is_view else reader.custom()


def _read(path: Path) -> _CustomReader:
    text, data = read_yaml(path, "the data set's description")
    return _CustomReader(path, text, data)


class _CustomReader(SpecReader):
    """Reads the yaml form of a spec: fewer facts, folders instead of a prepared tree."""

    @property
    def is_view(self) -> bool:
        return isinstance(self.data, dict) and "base" in self.data

    def custom(self) -> Custom:
        required = {"name", "classes", "unseen", "splits"}
        optional = {"title", "ignore_label", "things", "synonyms", "raw_to_train"}
        self.check_keys(self.data, "top level", required, optional)
        name = self.own_name()
        classes = self.names("classes")
        self.data.setdefault("ignore_label", 255)
        ignore_label = self.ignore_label(classes)
        given = self.data.get("raw_to_train", identity(classes, ignore_label))
        mapping = self.raw_map(given, "raw_to_train", classes)
        benchmark = Benchmark(
            name=name,
            title=self.string(self.data.get("title", name), "title"),
            sources=(str(self.path),),
            classes=classes,
            synonyms=self.synonyms(classes),
            unseen_ids=self.unseen(classes) if self.data["unseen"] else (),
            ignore_label=ignore_label,
            raw_to_train=mapping,
            splits={n: Split(n, n, None) for n in self.split_names()},
            things=self.things(classes),
        )
        held = mapping if "raw_to_train" in self.data else None
        return Custom(benchmark, {n: self.location(n, held) for n in benchmark.splits})

    def view(self) -> Custom:
        self.check_keys(self.data, "top level", {"name", "base", "hold_out"}, {"title"})
        name = self.own_name()
        base = self.base(self.string(self.data["base"], "base"))
        shown, held_out = base.benchmark, self.held_out(base.benchmark)
        # The raw ids of a view are those of its base, which need not be what the masks hold.
        benchmark = dataclasses.replace(
            hold_out(shown, held_out),
            name=name,
            title=self.string(self.data.get("title", name), "title"),
            sources=(str(self.path), *shown.sources),
        )
        locations = {n: without_unseen(shown, where) for n, where in base.locations.items()}
        return Custom(benchmark, locations, shown.name)

    def base(self, named: str) -> Custom:
        """Return the data set of that name or description."""
        if not named.endswith((".yaml", ".yml")):
            if named not in available_benchmarks():
                near = closest(named, available_benchmarks())
                raise self.fail(
                    "base",
                    f"unknown benchmark {named!r}{near}; available: "
                    f"{', '.join(available_benchmarks())}, or the path of a .yaml description",
                )
            benchmark = load_benchmark(named)
            splits = benchmark.splits.items()
            return Custom(benchmark, {n: prepared_location(benchmark, s) for n, s in splits})
        reader = _read(self.path_of(named, "base"))
        if reader.is_view:
            raise self.fail("base", f"{named} is a view itself; name the data set that it shows")
        return reader.custom()

    def held_out(self, base: Benchmark) -> tuple[str, ...]:
        names = self.names("hold_out")
        for name in names:
            if name not in base.seen_names:
                near = closest(name, base.seen_names)
                raise self.fail("hold_out", f"{name!r} is no seen class of {base.name}{near}", name)
        if len(names) == len(base.seen_names):
            raise self.fail("hold_out", "every seen class is held out; leave some for training")
        return names

    def own_name(self) -> str:
        name = self.identifier(self.data["name"], "name")
        if name in available_benchmarks():
            raise self.fail("name", f"{name!r} is a benchmark of the package; choose another name")
        return name

    def split_names(self) -> list[str]:
        splits = self.data["splits"]
        if not isinstance(splits, dict) or not splits:
            raise self.fail("splits", f"must name a split or more, not {splits!r:.60}")
        return [self.identifier(name, "splits") for name in splits]

    def location(self, split: str, held: Mapping[int, int] | None) -> Location:
        key, entry = f"splits.{split}", self.data["splits"][split]
        self.check_keys(entry, key, {"images", "masks"}, {"list"})
        images, masks = (self.path_of(entry[name], f"{key}.{name}") for name in ("images", "masks"))
        remedy = f"correct splits.{split} in {self.path}"
        for folder in (images, masks):
            require_folder(folder, remedy)
        ids = None
        if "list" in entry:
            ids = tuple(read_id_list(self.path_of(entry["list"], f"{key}.list"), images))
        return Location(images, masks, remedy, ids, held, self.mask_remedy())

    def mask_remedy(self) -> str:
        if "raw_to_train" in self.data:
            return f"correct the mask, or say in {self.path} what raw_to_train makes of the value"
        return (
            f"correct the mask, or give raw_to_train in {self.path}, or correct classes or "
            "ignore_label there"
        )

    def path_of(self, value: Any, key: str) -> Path:
        text = os.path.expandvars(self.string(value, key))
        return self.path.parent / Path(text).expanduser()
