"""What a data set from an export will be: classes and ids, pairs of images, which validate."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zss_d2.data.exports.dataset import Description, Item
from zss_d2.data.exports.export import Export, Painter, Picture
from zss_d2.data.exports.images import Images, image_ids
from zss_d2.data.files.listing import IMAGE_SUFFIXES
from zss_d2.data.files.lists import read_id_list, read_text
from zss_d2.data.labels import MAX_LABEL
from zss_d2.data.spec.benchmark import available_benchmarks
from zss_d2.data.spec.schema import ALL, closest
from zss_d2.errors import ZssError
from zss_d2.utils.text import one_line
from zss_d2.utils.writing import write_atomic

# Lies in every folder that is ours.
_MARK = ".zss_masks"


@dataclass(frozen=True)
class Plan:
    """Class names in the order of their ids, how they are painted, and the yaml to write."""

    classes: tuple[str, ...]
    painter: Painter
    description: Description


def make_plan(
    export: Export, output: Path, name: str | None, background: str | None, unseen: Sequence[str]
) -> Plan:
    """Decide on everything that needs no image.

    Args:
        name: of the data set; None: that of the output folder.
        background: class of what nothing covers, first if it is new; None: that is void.
        unseen: names of classes, or ``all``.

    Raises ZssError for names that are none, and a description that was made for other classes.
    """
    classes = _classes(export.classes, background)
    name = _name(output, name)
    # 8 bit as long as a value is left for void.
    void = 255 if len(classes) <= 255 else MAX_LABEL
    ids = {each: index for index, each in enumerate(classes)}
    description = Description(
        output / f"{name}.yaml",
        name,
        export.tool,
        classes,
        export.colours,
        _unseen(classes, unseen),
        void,
    )
    description.check()
    return Plan(tuple(classes), Painter(ids, void, ids.get(background, void)), description)


def claim(output: Path) -> None:
    """Mark a folder as one of `zss masks`, before anything is written there.

    Raises ZssError where other files lie, which could be originals; hidden ones are no matter.
    """
    mark = output / _MARK
    there = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    others = [name for name in there if not name.startswith(".")]
    if others and not mark.is_file():
        raise ZssError(
            f"--output {output} holds other files, such as {others[0]}; name a new folder"
        )
    write_atomic(mark, lambda file: file.write_text("Written by zss masks.\n", encoding="utf-8"))


def pair_up(export: Export, images: Images, empty_too: bool) -> tuple[list[Item], list[str]]:
    """Find the images of an export; returns them, and a line per one that is bad.

    Args:
        empty_too: images without a region are part of the data set.
    """
    found: dict[str, Picture] = {}
    problems = []
    for picture in export.pictures:
        if not (empty_too or picture.problem or picture.by_stem or picture.regions):
            continue
        try:
            relative = images.find(picture.image, picture.by_stem)
            if picture.problem:
                raise ZssError(picture.problem)
            if relative in found:
                other = found[relative].source
                raise ZssError(f"{relative} is described twice, also in {other}; leave one out")
            found[relative] = picture
        except ZssError as error:
            problems.append(f"{picture.source}: image {picture.image[0]}: {error}")
    return [
        Item(found[relative], image_id, images.files[relative])
        for relative, image_id in image_ids(found).items()
    ], problems


def read_val_list(path: Path, images: Images, items: Sequence[Item]) -> set[str]:
    """Read the ids of the images that a file names, one per line, by path, name or id.

    Raises ZssError naming the line.
    """
    known = {item.image: item.image_id for item in items}
    ids, listed = set(known.values()), set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        if text in ids:
            listed.add(text)
            continue
        try:
            by_stem = not text.lower().endswith(IMAGE_SUFFIXES)
            image = images.files[images.find([text], by_stem)]
            if image not in known:
                raise ZssError(f"{text!r} has no annotation; remove the line")
        except ZssError as error:
            raise ZssError(f"{path}: line {number}: {error}") from None
        listed.add(known[image])
    if not listed:
        raise ZssError(f"{path}: the list is empty; give one image per line")
    return listed


def choose_val(ids: Collection[str], share: float, output: Path) -> set[str]:
    """Choose the validation images: ``share`` of all, but one at least and one less than all.

    Which ones depends on their names only. What an earlier run has chosen stays, and new images are
    taken before those that it has trained on.
    """
    earlier = {split: _earlier(output, split) for split in ("train", "val")}

    def rank(image_id: str) -> tuple[int, str]:
        place = 0 if image_id in earlier["val"] else 2 if image_id in earlier["train"] else 1
        return place, hashlib.sha256(image_id.encode()).hexdigest()

    count = min(max(1, round(share * len(ids))), len(ids) - 1) if share else 0
    return set(sorted(ids, key=rank)[:count])


def _earlier(output: Path, split: str) -> set[str]:
    path = output / f"{split}.txt"
    return set(read_id_list(path, output / "images")) if path.is_file() else set()


def write_lists(output: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write ``SPLIT.txt`` with the ids of its images, one per line; raises WriteError."""
    for split, listed in splits.items():
        text = "".join(f"{image_id}\n" for image_id in listed)
        write_atomic(
            output / f"{split}.txt",
            lambda file, text=text: file.write_text(text, encoding="utf-8"),
        )


def _classes(named: Sequence[str], background: str | None) -> list[str]:
    if background is not None and not background.strip():
        raise ZssError("--background is empty; name a class")
    new = [background] if background is not None and background not in named else []
    classes = [*new, *named]
    if not classes:
        raise ZssError("the annotations name no class; export the labels too")
    if len(classes) > MAX_LABEL:
        raise ZssError(f"{len(classes)} classes; masks of 16 bit take {MAX_LABEL}")
    return classes


def _name(output: Path, given: str | None) -> str:
    name = given or re.sub(r"\W", "_", output.resolve().name)
    if not given and not name.isidentifier():
        name = f"my_{name}"
    if not name.isidentifier():
        raise ZssError(f"--name {name!r} may hold only letters, digits and underscores")
    if name in available_benchmarks():
        raise ZssError(f"{name!r} is a benchmark of the package; give another --name")
    return name


def _unseen(classes: Sequence[str], named: Sequence[str]) -> list[str] | str:
    if list(named) == [ALL] and ALL not in classes:
        return ALL
    for name in named:
        if name not in classes:
            there = ", ".join(map(one_line, classes))
            raise ZssError(
                f"--unseen {name!r} is no class{closest(name, classes)}; there are {there}"
            )
    if len(set(named)) == len(classes):
        raise ZssError("--unseen names every class; leave some for training, or give `all`")
    return [name for name in classes if name in named]
