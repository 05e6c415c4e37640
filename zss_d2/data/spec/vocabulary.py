"""What the label ids of data sets mean, and whether several mean the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from detectron2.data import DatasetCatalog, MetadataCatalog

from zss_d2.config.values import listed, shown
from zss_d2.data.spec.benchmark import Benchmark
from zss_d2.data.spec.schema import closest
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a data set in the order of their ids, those unseen, and the void label."""

    dataset: str
    classes: tuple[str, ...]
    unseen: frozenset[str]
    ignore_label: int

    @classmethod
    def of_benchmark(cls, dataset: str, benchmark: Benchmark) -> Vocabulary:
        unseen = frozenset(benchmark.unseen_names)
        return cls(dataset, benchmark.classes, unseen, benchmark.ignore_label)

    @classmethod
    def registered(cls, dataset: str) -> Vocabulary:
        """That of the metadata; raises ZssError for an unknown data set, or one of another kind."""
        if dataset not in DatasetCatalog.list():
            raise ZssError(_unknown(dataset))
        metadata = MetadataCatalog.get(dataset)
        for fact in ("stuff_classes", "seen_classes", "unseen_classes", "ignore_label"):
            if metadata.get(fact) is None:
                raise ZssError(
                    f"data set {dataset!r} does not say its {fact}; describe it as a custom "
                    "dataset (datasets/README.md)"
                )
        unseen = frozenset(metadata.unseen_classes)
        return cls(dataset, tuple(metadata.stuff_classes), unseen, metadata.ignore_label)

    def difference(self, other: Vocabulary) -> str:
        """Say where ``other`` first differs from this one; nothing where ids mean the same."""
        for i, (here, there) in enumerate(zip_longest(self.classes, other.classes)):
            if here != there:
                return f"id {i} is {_quoted(here)} in the first, {_quoted(there)} in the second"
        for name in self.classes:
            if (name in self.unseen) != (name in other.unseen):
                which = "first" if name in self.unseen else "second"
                return f"{name!r} is unseen in the {which} only"
        if self.ignore_label != other.ignore_label:
            labels = self.ignore_label, other.ignore_label
            return "void pixels are {} in the first, {} in the second".format(*labels)
        return ""


def require_one_vocabulary(datasets: Iterable[str]) -> None:
    """Raise ZssError unless the ids of all the registered training sets mean the same."""
    require_equal([Vocabulary.registered(name) for name in datasets])


def require_equal(vocabularies: Sequence[Vocabulary]) -> None:
    """Raise ZssError, naming the first two sets that differ, unless ids mean the same in all."""
    for other in vocabularies[1:]:
        if difference := vocabularies[0].difference(other):
            raise ZssError(
                f"DATASETS.TRAIN: {vocabularies[0].dataset} and {other.dataset} cannot be mixed: "
                f"{difference}; train on one of them, or describe the second as a custom dataset "
                "with the classes of the first (datasets/README.md, 'Several training sets')"
            )


def require_distinct_tests(datasets: Sequence[str]) -> None:
    """Raise ZssError if a test set is named twice: its scores have one place."""
    for name in datasets:
        if datasets.count(name) > 1:
            raise ZssError(f"DATASETS.TEST names {name} more than once; name it once")


def _unknown(dataset: str) -> str:
    ours = sorted(name for name in DatasetCatalog.list() if name.startswith("zss_"))
    text = f"no data set {shown(dataset)}{closest(dataset, ours)}"
    sets = {name: MetadataCatalog.get(name).get("benchmark", "") for name in ours}
    parents = [known for known in sets.values() if known and dataset.startswith(f"zss_{known}_")]
    if parents:
        parent = max(parents, key=len)
        splits = [name for name, known in sets.items() if known == parent]
        return f"{text}; {parent} has {', '.join(splits)}"
    return f"{text}; known: {listed(ours, 6)}; a custom dataset also needs DATASETS.CUSTOM"


def _quoted(name: str | None) -> str:
    return "no class" if name is None else repr(name)
