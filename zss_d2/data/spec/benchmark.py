"""Benchmarks: the classes of a data set, which are unseen, and what raw mask values mean.

Each is a yaml file of facts; a new one needs a new file and no code. The unseen classes are stated
there once, by name, and everything else reads them from here. In a data set that is only tested on
no class is seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zss_d2.data.labels import build_lut
from zss_d2.data.spec.schema import DatasetSpec, SplitSpec, closest, read_spec
from zss_d2.errors import ZssError

SPEC_FOLDER = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Split:
    """One part of a benchmark, kept in the folder ``folder`` of the prepared tree, or where it is.

    ``place`` says where that is; None for the prepared tree.
    """

    name: str
    folder: str
    expected_images: int | None
    sources: tuple[str, ...] = ()
    ids_sha256: str = ""
    """Hash of the published id list, see `ids_digest`; empty where none is at hand."""
    place: SplitSpec | None = None


@dataclass(frozen=True)
class Benchmark:
    """The facts of a spec. A train id is a position in ``classes`` or ``ignore_label``.

    ``raw_to_train`` is for the masks as they are usually passed on, ``encodings`` for other
    editions of the same masks, by name. ``colors``, RGB in 0..255, are those of some classes in
    pictures.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]]
    unseen_ids: tuple[int, ...]
    ignore_label: int
    raw_to_train: Mapping[int, int]
    splits: Mapping[str, Split]
    things: tuple[str, ...] = ()
    colors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    encodings: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    prepare_script: str = ""
    pseudo_labels: bool = False
    """Whether a model has labelled the images."""

    @property
    def seen_ids(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.classes)) if i not in self.unseen_ids)

    @property
    def seen_names(self) -> tuple[str, ...]:
        return tuple(self.classes[i] for i in self.seen_ids)

    @property
    def unseen_names(self) -> tuple[str, ...]:
        return tuple(self.classes[i] for i in self.unseen_ids)

    @property
    def lut(self) -> np.ndarray:
        """`zss_d2.data.labels.build_lut` of ``raw_to_train``."""
        return build_lut(self.raw_to_train)

    @classmethod
    def of_spec(cls, spec: DatasetSpec) -> Benchmark:
        """Return what a valid description says."""
        classes = tuple(spec.classes)
        raw_to_train = spec.raw_to_train or identity(classes, spec.ignore_label)
        return cls(
            name=spec.name,
            title=spec.title or spec.name,
            sources=tuple(spec.sources),
            classes=classes,
            synonyms={name: tuple(words) for name, words in spec.synonyms.items()},
            unseen_ids=tuple(i for i, name in enumerate(classes) if name in spec.unseen),
            ignore_label=spec.ignore_label,
            raw_to_train=raw_to_train,
            splits={
                name: Split(
                    name=name,
                    folder=split.folder or name,
                    expected_images=split.expected_images,
                    sources=tuple(split.sources),
                    ids_sha256=split.ids_sha256 or "",
                    place=None if split.folder else split,
                )
                for name, split in spec.splits.items()
            },
            things=tuple(name for name in classes if name in spec.things),
            colors={name: tuple(rgb) for name, rgb in spec.colors.items()},
            encodings=spec.encodings,
            pseudo_labels=spec.pseudo_labels,
            prepare_script=spec.prepare or f"prepare_{spec.name}.py",
        )


def identity(classes: Iterable[str], ignore_label: int) -> dict[int, int]:
    """Return the ``raw_to_train`` of masks that hold train ids."""
    ids = range(len(tuple(classes)))
    return {train: train for train in (*ids, ignore_label)}


def available_benchmarks() -> tuple[str, ...]:
    """Return the names of the benchmarks that come with the package."""
    return tuple(sorted(path.stem for path in SPEC_FOLDER.glob("*.yaml")))


def load_benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name; raises ZssError if the package has none."""
    known = available_benchmarks()
    if name not in known:
        raise ZssError(
            f"unknown benchmark {name!r}{closest(name, known)}; available: {', '.join(known)}, or "
            "the path of a .yaml description"
        )
    return Benchmark.of_spec(read_spec(SPEC_FOLDER / f"{name}.yaml"))


def ids_digest(ids: Iterable[str]) -> str:
    """Return the SHA-256, in hex, over the sorted ids, each followed by a line break."""
    return hashlib.sha256("".join(f"{i}\n" for i in sorted(ids)).encode()).hexdigest()
