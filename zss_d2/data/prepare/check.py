"""What is wrong with the data of a training config, a benchmark or a custom dataset."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from zss_d2.config.values import converted
from zss_d2.data.files.listing import Location, load_records, summarise
from zss_d2.data.files.lists import read_text
from zss_d2.data.prepare.outcome import print_outcomes
from zss_d2.data.prepare.verify import check_location
from zss_d2.data.spec.benchmark import (
    Benchmark,
    Split,
    available_benchmarks,
    load_benchmark,
)
from zss_d2.data.spec.custom import load_custom
from zss_d2.data.spec.locations import dataset_name, prepared_location
from zss_d2.data.spec.naming import check_length, check_names, clip_tokenizer
from zss_d2.data.spec.schema import closest
from zss_d2.data.spec.vocabulary import Vocabulary, require_distinct_tests, require_equal
from zss_d2.errors import ZssError
from zss_d2.utils.installation import shipped_config

# Where no config says which CLIP reads the class names.
CLIP_NAME = "ViT-B-16"
CLIP_TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Target:
    """A split to check.

    ``trained_ids`` are the classes whose labels training is to see, None where the split is not for
    training.
    """

    benchmark: Benchmark
    split: Split
    location: Location
    trained_ids: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return dataset_name(self.benchmark, self.split)


def benchmark_targets(benchmark: Benchmark) -> list[Target]:
    """List the splits of a benchmark, where DETECTRON2_DATASETS says that they are."""
    return [
        Target(benchmark, split, prepared_location(benchmark, split))
        for split in benchmark.splits.values()
    ]


def custom_targets(path: str | Path) -> list[Target]:
    """List the splits of a custom description; raises ZssError if that is wrong."""
    custom = load_custom(path)
    return [
        Target(custom.benchmark, split, custom.locations[split.name])
        for split in custom.benchmark.splits.values()
    ]


def config_targets(config: Mapping[str, Any]) -> tuple[list[Target], list[str]]:
    """List the splits that a merged config trains and tests on, and what to know about them.

    Raises ZssError for a data set that does not exist, for a bad custom description, and for
    training sets whose label ids do not mean the same.
    """
    known = {
        target.name: target
        for name in available_benchmarks()
        for target in benchmark_targets(load_benchmark(name))
    }
    datasets = config.get("DATASETS", {})
    if not isinstance(datasets, Mapping):
        raise ZssError(f"DATASETS is {datasets!r:.60}; give it keys, such as TRAIN and TEST")
    for path in _names(datasets.get("CUSTOM", ())):
        known |= {target.name: target for target in custom_targets(path)}
    chosen = {}
    for part in ("TRAIN", "TEST"):
        names = _names(datasets.get(part, ()))
        for name in names:
            if name not in known:
                raise ZssError(
                    f"DATASETS.{part}: no data set {name!r}{closest(name, known)}; known: "
                    f"{', '.join(sorted(known))}"
                )
        chosen[part] = [known[name] for name in names]
    if not chosen["TRAIN"]:
        raise ZssError("DATASETS.TRAIN is empty; name the data set that gives the seen classes")
    require_distinct_tests([target.name for target in chosen["TEST"]])
    require_equal([Vocabulary.of_benchmark(t.name, t.benchmark) for t in chosen["TRAIN"]])
    setting = _value(config, "ZERO_SHOT", "SETTING") or "inductive"
    first = chosen["TRAIN"][0].benchmark
    notes = vocabulary_notes(first, setting, chosen["TEST"])
    notes += repetition_notes(chosen["TRAIN"], chosen["TEST"])
    clip = {key: _value(config, "MODEL", "CLIP", key) for key in ("NAME", "TEMPLATES", "SYNONYMS")}
    benchmarks = [target.benchmark for targets in chosen.values() for target in targets]
    notes += require_names(
        benchmarks, clip["NAME"] or CLIP_NAME, clip["TEMPLATES"], clip["SYNONYMS"] is True
    )
    trained_ids = tuple(range(len(first.classes))) if setting == "supervised" else first.seen_ids
    trained = {t.name: dataclasses.replace(t, trained_ids=trained_ids) for t in chosen["TRAIN"]}
    if not trained_ids:
        if _value(config, "SOLVER", "MAX_ITER") != 0:
            raise ZssError(
                f"DATASETS.TRAIN {chosen['TRAIN'][0].name} has no seen classes, being only tested "
                "on; set SOLVER.MAX_ITER 0, or train on another data set"
            )
        notes.append(f"{', '.join(trained)}: not checked, it gives the class names and no labels")
        trained = {}
    tested = {t.name: t for t in chosen["TEST"] if t.name not in trained}
    return [*trained.values(), *tested.values()], notes


def require_names(
    benchmarks: Iterable[Benchmark], clip: str, templates: Any = None, synonyms: bool = False
) -> list[str]:
    """Raise ZssError for class names that CLIP cannot tell apart, or that are too long for it.

    Args:
        clip: name of the model, whose tokenizer decides.
        templates: sentences with ``{}`` that names are put into; one of the usual kind if None.

    Returns:
        A note if that tokenizer is not at hand.
    """
    tokenizer = clip_tokenizer(clip)
    if tokenizer is None:
        return [
            f"class names are not tokenized: the tokenizer of MODEL.CLIP.NAME {clip} is not here"
        ]
    sentences = _names(templates) if templates else (CLIP_TEMPLATE,)
    for benchmark in {benchmark.name: benchmark for benchmark in benchmarks}.values():
        more = benchmark.synonyms if synonyms else {}
        words = [w for name in benchmark.classes for w in (name, *more.get(name, ()))]
        texts = [sentence.replace("{}", word) for sentence in sentences for word in words]
        try:
            check_names(tokenizer, benchmark.classes, more)
            check_length(tokenizer, texts, tokenizer(texts))
        except ZssError as error:
            raise ZssError(f"classes of {benchmark.name}: {error}") from None
    return []


def vocabulary_notes(train: Benchmark, setting: str, tests: Iterable[Target]) -> list[str]:
    """Say where a test set's seen and unseen classes are not those of training, by exact name."""
    trained = set(train.classes if setting == "supervised" else train.seen_names)
    notes = [
        f"{setting} training on {train.name}: labels and names of {len(trained)} of "
        f"{len(train.classes)} classes"
    ]
    for target in tests:
        benchmark = target.benchmark
        leaked = [name for name in benchmark.unseen_names if name in trained]
        if leaked:
            notes.append(
                f"{target.name}: {summarise(leaked)} count as unseen there but are trained; "
                "mIoU-U and hIoU of this run are no zero-shot scores"
            )
        if benchmark.name != train.name:
            new = [name for name in benchmark.classes if name not in train.classes]
            notes.append(
                f"{target.name}: cross-dataset, the model is given its {len(benchmark.classes)} "
                f"names; {summarise(new)} are not among the training names"
            )
    return notes


def repetition_notes(train: Sequence[Target], test: Sequence[Target]) -> list[str]:
    """Say where one image is listed more than once, by the file that it is in the end."""
    notes = []
    images = {target.name: _images(target) for target in (*train, *test)}
    trained = Counter(target.name for target in train)
    for name, times in trained.items():
        if times > 1:
            notes.append(f"{name} is named {times} times: drawn {times} times as often")
    for first, second in itertools.combinations(trained, 2):
        if both := images[first] & images[second]:
            notes.append(f"{first} and {second} share {len(both)} images, drawn as part of either")
    for name in trained:
        for target in test:
            if both := images[name] & images[target.name]:
                notes.append(
                    f"{target.name}: {len(both)} of {len(images[target.name])} images are also in "
                    f"{name}; scores on what was trained are no test scores"
                )
    return notes


def _images(target: Target) -> set[str]:
    """Return the images of a split, links followed; none where it is not usable."""
    try:
        records = load_records(target.location, target.name)
    except ZssError:
        return set()
    return {os.path.realpath(record["file_name"]) for record in records}


def check_targets(targets: Sequence[Target], workers: int) -> int:
    """Check the splits one after the other and print the findings; returns the problem count."""
    return sum(
        print_outcomes(
            [
                check_location(
                    target.benchmark,
                    target.split,
                    target.location,
                    workers=workers,
                    any_count=True,
                    trained_ids=target.trained_ids,
                )
            ]
        )
        for target in targets
    )


def find_targets(subject: str) -> tuple[list[Target], list[str]]:
    """Return the splits that ``subject`` names, and notes; raises ZssError."""
    shipped = None if os.path.exists(subject) else shipped_config(subject)
    if not shipped and not subject.endswith((".yaml", ".yml")):
        benchmark = load_benchmark(subject)
        targets = benchmark_targets(benchmark)
        return [_as_named(t) for t in targets], _describe(benchmark)
    subject = str(shipped or subject)
    if not os.path.isfile(subject):
        raise ZssError(f"{subject}: no such file; give a config, a benchmark or a data set's yaml")
    try:
        top_level = yaml.safe_load(read_text(Path(subject)))
    except yaml.YAMLError:
        top_level = None
    own = {"classes", "splits", "base", "hold_out", "unseen"}
    if not isinstance(top_level, dict) or own & top_level.keys():
        targets = custom_targets(subject)
        return [_as_named(t) for t in targets], _describe(targets[0].benchmark)
    try:
        config = CfgNode.load_yaml_with_base(subject)
    except OSError as error:
        raise ZssError(f"{subject}: cannot read {error.filename}; check _BASE_") from None
    except RecursionError:
        raise ZssError(f"{subject}: _BASE_ leads back to the same file; name another") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = getattr(error, "problem", "") or error
        raise ZssError(f"{subject}, or its _BASE_: no plain yaml ({reason}); fix it") from None
    return config_targets(config)


def _as_named(target: Target) -> Target:
    """Take a split that is named ``train...`` for one that is trained on, as no config says it."""
    if not target.split.name.startswith("train") or not target.benchmark.seen_ids:
        return target
    return dataclasses.replace(target, trained_ids=target.benchmark.seen_ids)


def _describe(benchmark: Benchmark) -> list[str]:
    """Return notes about a benchmark that no config speaks of; raises ZssError for its names."""
    parts = (
        f"{len(benchmark.seen_ids)} seen, {len(benchmark.unseen_ids)} unseen "
        f"({', '.join(benchmark.unseen_names)})"
        if benchmark.seen_ids
        else "all unseen: it is only tested on"
    )
    return [
        f"{benchmark.name}: {len(benchmark.classes)} classes, {parts}, ignore label "
        f"{benchmark.ignore_label}",
        *require_names([benchmark], CLIP_NAME),
    ]


def _value(config: Mapping[str, Any], *keys: str) -> Any:
    """Return what a file says of a nested key; None if nothing."""
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _names(value: Any) -> tuple[str, ...]:
    """Read a tuple of strings as a config does: yaml gives it as text, a name may stand alone."""
    try:
        return converted(value, ())
    except ValueError as error:
        raise ZssError(f"DATASETS has {value!r}; give {error}") from None
