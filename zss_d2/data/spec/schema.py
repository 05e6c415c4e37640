"""The yaml format of data sets and views: what may be said, and what is wrong with a file.

A file describes a data set, either one that a script prepares (its splits have a ``folder`` in the
prepared tree; the benchmarks of the package are such files) or one where it lies (its splits have
``images`` and ``masks``), or a view: another data set with other unseen classes (``base``).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from zss_d2.config.yaml_file import read_yaml
from zss_d2.data.files.listing import IMAGE_SUFFIXES, MASK_SUFFIXES
from zss_d2.data.labels import MAX_LABEL
from zss_d2.errors import ZssError

Model = TypeVar("Model", bound=BaseModel)
# What stands for the list of unseen classes of a data set that is only tested on.
ALL = "all"
# What to write instead of a value of another type, by pydantic's names of errors.
_REMEDIES = {
    "list_type": "write a list, such as [sky, dog]",
    "dict_type": "write lines of KEY: VALUE",
    "model_type": "write lines of KEY: VALUE",
    "string_type": "write text, in quotes if it looks like a number or a truth value",
    "int_type": "write a whole number",
}


def closest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the most similar known word, or an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; write something, or leave the key out")
    return value


def _identifier(value: str) -> str:
    if not value.isidentifier():
        raise ValueError(f"{value!r} may hold only letters, digits and underscores")
    return value


def _raw_value(value: Any) -> Any:
    # Keys of a JSON file, which yaml reads too, are text.
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if type(number) is not int or not 0 <= number <= MAX_LABEL:
        raise ValueError(f"raw value {value!r:.60} must be an integer in 0..{MAX_LABEL}")
    return number


def as_clip_reads(name: str) -> str:
    """A class name without what CLIP's tokenizer does not see: blanks and capitals."""
    return " ".join(name.split()).casefold()


def _names(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("the list is empty; name at least one class")
    seen: dict[str, str] = {}
    for name in _unique(names):
        other = seen.setdefault(as_clip_reads(name), name)
        if other != name:
            raise ValueError(
                f"{other!r} and {name!r} differ in blanks or capitals alone, which CLIP does not "
                "see; rename one"
            )
    return names


def _unique(names: list[str]) -> list[str]:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{name!r} is listed {count} times; names must be unique")
    return names


def _ending_of(suffixes: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if not value.lower().endswith(suffixes):
            raise ValueError(f"{value!r} must end in one of {', '.join(suffixes)}")
        return value

    return AfterValidator(check)


Text = Annotated[str, AfterValidator(_text)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Names = Annotated[list[Text], AfterValidator(_names)]
Colour = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
RawMap = dict[Annotated[int, BeforeValidator(_raw_value)], int | str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SplitSpec(_Strict):
    """Where a split is: in the prepared tree, or in folders of its own (paths as they are written).

    ``ids_sha256`` is the hash of the published id list, see
    `zss_d2.data.spec.benchmark.ids_digest`. In folders of its own, ``image_ending`` and
    ``mask_ending`` are what follows the id in the names of its files, by default a suffix; with
    ``subfolders`` files lie in folders inside too, one level down.
    """

    folder: Text | None = None
    expected_images: Annotated[int, Field(ge=0, le=10**9)] | None = None
    ids_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    sources: list[Text] = []
    images: Text | None = None
    masks: Text | None = None
    id_list: Text | None = Field(None, alias="list")
    image_ending: Annotated[str, _ending_of(IMAGE_SUFFIXES)] | None = None
    mask_ending: Annotated[str, _ending_of(MASK_SUFFIXES)] | None = None
    subfolders: bool = False

    @property
    def image_endings(self) -> tuple[str, ...]:
        return (self.image_ending,) if self.image_ending else IMAGE_SUFFIXES

    @property
    def mask_endings(self) -> tuple[str, ...]:
        return (self.mask_ending,) if self.mask_ending else MASK_SUFFIXES

    @model_validator(mode="after")
    def _one_place(self) -> SplitSpec:
        needed = ("folder", "expected_images") if self.folder else ("images", "masks")
        for key in needed:
            if getattr(self, key) is None:
                raise ValueError(f"the key {key!r} is missing; add it")
        own = self.model_fields_set - {"folder", "expected_images", "ids_sha256", "sources"}
        if self.folder and own:
            raise ValueError("has a 'folder' and 'images', 'masks' or 'list' too; remove either")
        return self


class DatasetSpec(_Strict):
    """A data set: its classes, which are unseen, and what the values of its masks mean.

    ``raw_to_train`` gives the class, by name or id, or the ignore label of every value that a mask
    may hold; None: masks hold train ids, that is positions in ``classes``, or the ignore label.
    ``pseudo_labels``: a model has labelled the images, so that nothing is tested on them.
    ``encodings`` are those of other editions of the same masks. ``colors`` are those of classes in
    pictures, RGB; any may be left out. ``unseen`` may be the word ``all``,
    of a data set that is only tested on.
    """

    name: Identifier
    title: Text | None = None
    sources: list[Text] = []
    prepare: Text | None = None
    classes: Names
    things: list[Text] = []
    synonyms: dict[str, list[Text]] = {}
    colors: dict[str, Colour] = {}
    unseen: list[Text]
    ignore_label: Annotated[int, Field(ge=0, le=MAX_LABEL)] = 255
    raw_to_train: RawMap | None = None
    encodings: dict[Identifier, RawMap] = {}
    pseudo_labels: bool = False
    splits: dict[Identifier, SplitSpec]

    # Validators get, in ``info.data``, the keys that stand above theirs and are right.

    @field_validator("unseen", mode="before")
    @classmethod
    def _none(cls, names: Any) -> Any:
        return [] if names is None else names

    @field_validator("things", "unseen", "synonyms", "colors")
    @classmethod
    def _known(cls, names: Any, info: ValidationInfo) -> Any:
        for name in names if "classes" in info.data else ():
            require_class(name, info.data["classes"])
        return names if isinstance(names, dict) else _unique(names)

    @field_validator("unseen")
    @classmethod
    def _some_seen(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if len(names) == len(info.data.get("classes", ())):
            raise ValueError(
                "every class is unseen; leave at least one for training, or write `unseen: all` "
                "for a data set that is only tested on"
            )
        return names

    @field_validator("unseen", mode="wrap")
    @classmethod
    def _only_tested(cls, names: Any, known: Any, info: ValidationInfo) -> list[str]:
        return list(info.data.get("classes", ())) if names == ALL else known(names)

    @field_validator("ignore_label")
    @classmethod
    def _no_class(cls, label: int, info: ValidationInfo) -> int:
        classes = info.data.get("classes", ())
        if label < len(classes):
            raise ValueError(
                f"{label} is the id of class {classes[label]!r}; choose {len(classes)} or more, "
                "usually 255"
            )
        return label

    @field_validator("raw_to_train")
    @classmethod
    def _ids(cls, given: RawMap | None, info: ValidationInfo) -> dict[int, int] | None:
        return None if given is None else _train_ids(given, info.data)

    @field_validator("encodings")
    @classmethod
    def _ids_of_each(
        cls, given: dict[str, RawMap], info: ValidationInfo
    ) -> dict[str, dict[int, int]]:
        return {name: _train_ids(mapping, info.data) for name, mapping in given.items()}

    @field_validator("splits")
    @classmethod
    def _any(cls, splits: dict[str, SplitSpec]) -> dict[str, SplitSpec]:
        if not splits:
            raise ValueError("must name a split or more, not {}")
        return splits


class ViewSpec(_Strict):
    """Another data set, ``base``, with other unseen classes.

    With ``unseen`` these are the unseen ones, and all the others are seen. With ``hold_out`` the
    unseen classes of the base are void in the view, see `zss_d2.data.spec.views`.
    """

    name: Identifier
    title: Text | None = None
    base: Text
    unseen: Names | None = None
    hold_out: Names | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ViewSpec:
        if (self.unseen is None) == (self.hold_out is None):
            raise ValueError(
                "give either 'unseen', the unseen classes of the view, or 'hold_out', which also "
                "makes those of the base void"
            )
        return self


def require_class(name: str, classes: Iterable[str]) -> None:
    """Raise ValueError unless ``name`` is one of ``classes``."""
    if name not in classes:
        raise ValueError(
            f"unknown class {name!r}{closest(name, classes)}; use a name listed in 'classes'"
        )


def _train_ids(given: RawMap, known: dict[str, Any]) -> dict[int, int]:
    """Put ids in the place of class names; raises ValueError for what is no id."""
    if not {"classes", "ignore_label"} <= known.keys():
        return {}
    classes, ignore_label = known["classes"], known["ignore_label"]
    mapping = {}
    for raw, train in given.items():
        if isinstance(train, str):
            require_class(train, classes)
            train = classes.index(train)
        if not (0 <= train < len(classes) or train == ignore_label):
            raise ValueError(
                f"raw value {raw} is mapped to {train}, outside 0..{len(classes) - 1} and not the "
                f"ignore label {ignore_label}; correct it"
            )
        mapping[raw] = train
    for index, name in enumerate(classes):
        if index not in mapping.values():
            raise ValueError(f"no raw value maps to {index} ({name!r}); add one")
    return mapping


def read_spec(path: Path) -> DatasetSpec | ViewSpec:
    """Read a description; raises ZssError naming the file, the key, the value and the remedy."""
    _, data = read_yaml(path, "the data set's description")
    if not isinstance(data, dict):
        raise ZssError(f"{path}: holds {data!r:.60}; write lines of KEY: VALUE, such as name")
    return _validated(path, ViewSpec if "base" in data else DatasetSpec, data)


def wrong(path: Path, key: str, problem: object) -> ZssError:
    """Return the complaint about a key of a description."""
    return ZssError(f"{path}: key '{key}': {problem}")


def _validated(path: Path, model: type[Model], data: dict) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A misspelt key may be one that is missing too.
        problems = error.errors(include_url=False)
        problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
    *parents, last = problem["loc"] or ("",)
    kind = problem["type"]
    if kind in ("missing", "extra_forbidden"):
        text = f"the key {last!r} is missing; add it"
        if kind == "extra_forbidden":
            fields = (SplitSpec if parents else model).model_fields
            known = [field.alias or name for name, field in fields.items()]
            text = f"unknown key {last!r}{closest(str(last), known)}; known: {', '.join(known)}"
        raise wrong(path, _dotted(parents), text)
    if kind == "value_error":
        raise wrong(path, _dotted(problem["loc"]), problem["ctx"]["error"])
    remedy = _REMEDIES.get(kind) or problem["msg"].replace("Input should", "it should", 1)
    raise wrong(path, _dotted(problem["loc"]), f"is {problem['input']!r:.60}; {remedy}")


def _dotted(location: Iterable[int | str]) -> str:
    parts = [str(part) for part in location]
    # How pydantic marks a wrong key of a mapping, and the types that a value may have.
    if parts and parts[-1] in ("[key]", "int", "str"):
        parts.pop()
    return ".".join(parts) or "top level"
