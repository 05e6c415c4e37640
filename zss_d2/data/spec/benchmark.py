"""Benchmark specs: the classes of a data set, which are unseen, and what raw mask values mean.

A spec is a JSON file of facts; a new benchmark needs a new file and no code. The unseen classes are
stated there once, by name, and everything else reads them from here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zss_d2.data.labels import MAX_LABEL, build_lut
from zss_d2.errors import ZssError

SPEC_FOLDER = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Split:
    """One part of a benchmark, kept in the folder ``folder`` of the prepared tree."""

    name: str
    folder: str
    expected_images: int | None
    sources: tuple[str, ...] = ()
    ids_sha256: str = ""
    """Hash of the published id list, see `ids_digest`; empty where none is at hand."""


@dataclass(frozen=True)
class Benchmark:
    """A validated spec. A train id is a position in ``classes`` or ``ignore_label``.

    ``raw_to_train`` is for the masks as they are usually passed on, ``encodings`` for other
    editions of the same masks, by name.
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
    encodings: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    prepare_script: str = ""

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


def available_benchmarks() -> tuple[str, ...]:
    """Return the names of the specs that come with the package."""
    return tuple(sorted(path.stem for path in SPEC_FOLDER.glob("*.json")))


def load_benchmark(name_or_path: str | Path) -> Benchmark:
    """Read and validate the spec of that name, or the spec file at that path.

    Raises ZssError naming the file, the key, the value and the remedy.
    """
    text = str(name_or_path)
    if text in available_benchmarks():
        return _read_spec(SPEC_FOLDER / f"{text}.json")
    if text.endswith(".json"):
        return _read_spec(Path(text))
    raise ZssError(
        f"unknown benchmark {text!r}{closest(text, available_benchmarks())}; available: "
        f"{', '.join(available_benchmarks())}, or the path of a .json spec"
    )


def closest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the most similar known word, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _read_spec(path: Path) -> Benchmark:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZssError(
            f"{path}: cannot read the benchmark spec ({error}); check the path"
        ) from None
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ZssError(
            f"{path}: line {error.lineno} column {error.colno}: invalid JSON ({error.msg}); "
            "mend that line"
        ) from None
    except _DuplicateKey as error:
        raise ZssError(f"{path}: key {error} is given twice in one object; remove one") from None
    return SpecReader(path, text, data).benchmark()


class _DuplicateKey(Exception):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise _DuplicateKey(repr(key))
    return dict(pairs)


class SpecReader:
    """Turns a parsed spec into a Benchmark; every complaint names the file, line and key."""

    def __init__(self, path: Path, text: str, data: Any):
        self.path = path
        self.text = text
        self.data = data

    def fail(self, key: str, problem: str, *words: str) -> ZssError:
        """Build the complaint about ``key``, at the line where ``words`` stand below it."""
        line = _line_of(self.text, key.split("."), words)
        return ZssError(f"{self.path}: line {line}: key '{key}': {problem}")

    def benchmark(self) -> Benchmark:
        optional = {"sources", "synonyms", "things", "encodings", "prepare"}
        required = {"name", "title", "classes", "unseen", "ignore_label", "raw_to_train", "splits"}
        self.check_keys(self.data, "top level", required, optional)
        classes = self.names("classes")
        ignore_label = self.ignore_label(classes)
        name = self.identifier(self.data["name"], "name")
        encodings = self.data.get("encodings", {})
        if not isinstance(encodings, dict):
            raise self.fail("encodings", f"must be an object, not {encodings!r:.60}")
        return Benchmark(
            name=name,
            title=self.string(self.data["title"], "title"),
            sources=self.strings(self.data.get("sources", []), "sources"),
            classes=classes,
            synonyms=self.synonyms(classes),
            unseen_ids=self.unseen(classes),
            ignore_label=ignore_label,
            raw_to_train=self.raw_map(self.data["raw_to_train"], "raw_to_train", classes),
            splits=self.splits(),
            things=self.things(classes),
            encodings={
                self.identifier(key, "encodings"): self.raw_map(given, f"encodings.{key}", classes)
                for key, given in encodings.items()
            },
            prepare_script=self.string(self.data.get("prepare", f"prepare_{name}.py"), "prepare"),
        )

    def ignore_label(self, classes: tuple[str, ...]) -> int:
        value = self.integer(self.data["ignore_label"], "ignore_label", MAX_LABEL)
        if value < len(classes):
            raise self.fail(
                "ignore_label",
                f"{value} is the id of class {classes[value]!r}; "
                f"choose {len(classes)} or more, usually 255",
            )
        return value

    def check_keys(self, value: Any, where: str, required: set[str], optional: set[str]) -> None:
        if not isinstance(value, dict):
            raise self.fail(where, f"must be an object, not {value!r:.60}")
        known = sorted(required | optional)
        for key in value:
            if key not in known:
                near = closest(str(key), known)
                raise self.fail(
                    where, f"unknown key {key!r}{near}; known: {', '.join(known)}", str(key)
                )
        for key in sorted(required - set(value)):
            raise self.fail(where, f"the key {key!r} is missing; add it")

    def string(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"must be a non-empty string, not {value!r:.60}", str(value))
        return value

    def identifier(self, value: Any, key: str) -> str:
        if not self.string(value, key).isidentifier():
            raise self.fail(key, f"{value!r} may hold only letters, digits and underscores")
        return value

    def strings(self, value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.fail(key, f"must be a list of strings, not {value!r:.60}")
        return tuple(self.string(item, key) for item in value)

    def integer(self, value: Any, key: str, largest: int) -> int:
        if type(value) is not int or not 0 <= value <= largest:
            raise self.fail(key, f"must be an integer in 0..{largest}, not {value!r:.60}")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        names = self.strings(self.data[key], key)
        for name, count in Counter(names).items():
            if count > 1:
                problem = f"{name!r} is listed {count} times; names must be unique"
                raise self.fail(key, problem, name, name)
        if not names:
            raise self.fail(key, "the list is empty; name at least one class")
        return names

    def class_id(self, name: str, key: str, classes: tuple[str, ...]) -> int:
        if name not in classes:
            raise self.fail(
                key,
                f"unknown class {name!r}{closest(name, classes)}; use a name listed in 'classes'",
                name,
            )
        return classes.index(name)

    def unseen(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        ids = sorted(self.class_id(name, "unseen", classes) for name in self.names("unseen"))
        if len(ids) == len(classes):
            raise self.fail("unseen", "every class is unseen; leave at least one for training")
        return tuple(ids)

    def synonyms(self, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        given = self.data.get("synonyms", {})
        self.check_keys(given, "synonyms", set(), set(classes))
        return {name: self.strings(words, f"synonyms.{name}") for name, words in given.items()}

    def things(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        names = self.names("things") if self.data.get("things") else ()
        return tuple(classes[i] for i in sorted(self.class_id(n, "things", classes) for n in names))

    def raw_map(self, given: Any, key: str, classes: tuple[str, ...]) -> dict[int, int]:
        """Validate a map of raw values to train ids, or to class names."""
        ignore_label = self.data["ignore_label"]
        if not isinstance(given, dict):
            raise self.fail(key, f"must be an object, not {given!r:.60}")
        mapping = {}
        for raw, train in given.items():
            text = str(raw)
            if not text.isascii() or not text.isdigit() or int(text) > MAX_LABEL:
                raise self.fail(
                    key, f"raw value {raw!r} must be an integer in 0..{MAX_LABEL}", text
                )
            if isinstance(train, str):
                train = self.class_id(train, key, classes)
            if type(train) is not int or not (0 <= train < len(classes) or train == ignore_label):
                raise self.fail(
                    key,
                    f"raw value {raw} is mapped to {train!r:.60}, outside 0..{len(classes) - 1} "
                    f"and not the ignore label {ignore_label}; correct it",
                    text,
                )
            mapping[int(text)] = train
        for i, name in enumerate(classes):
            if i not in mapping.values():
                raise self.fail(key, f"no raw value maps to {i} ({name!r}); add one")
        return mapping

    def splits(self) -> dict[str, Split]:
        given = self.data["splits"]
        if not isinstance(given, dict) or not given:
            raise self.fail("splits", f"must be an object with a split or more, not {given!r:.60}")
        splits = {}
        for name, entry in given.items():
            key = f"splits.{name}"
            self.check_keys(entry, key, {"folder", "expected_images"}, {"sources", "ids_sha256"})
            splits[name] = Split(
                name=self.identifier(name, "splits"),
                folder=self.string(entry["folder"], f"{key}.folder"),
                expected_images=self.integer(
                    entry["expected_images"], f"{key}.expected_images", 10**9
                ),
                sources=self.strings(entry.get("sources", []), f"{key}.sources"),
                ids_sha256=self.digest(entry.get("ids_sha256", ""), f"{key}.ids_sha256"),
            )
        return splits

    def digest(self, value: Any, key: str) -> str:
        if value != "" and not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
            raise self.fail(key, f"must be 64 hexadecimal digits, not {value!r:.60}")
        return value


def ids_digest(ids: Iterable[str]) -> str:
    """Return the SHA-256, in hex, over the sorted ids, each followed by a line break."""
    return hashlib.sha256("".join(f"{i}\n" for i in sorted(ids)).encode()).hexdigest()


def _line_of(text: str, keys: Iterable[str], words: Iterable[str]) -> int:
    """Return the number of the line that ``keys``, then ``words``, lead to, as far as found."""
    patterns = [rf'(?m)(?:"{re.escape(key)}"|^[ \t]*{re.escape(key)})\s*:' for key in keys]
    patterns += [rf"(?<!\w){re.escape(word)}(?!\w)" for word in words]
    start = end = 0
    for pattern in patterns:
        if found := re.compile(pattern).search(text, end):
            start, end = found.span()
    return text.count("\n", 0, start) + 1
