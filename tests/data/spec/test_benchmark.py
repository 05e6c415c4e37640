"""Benchmark specs: the facts of VOC, and what each mistake in a spec says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from zss_d2.data.spec.benchmark import (
    SPEC_FOLDER,
    Benchmark,
    available_benchmarks,
    load_benchmark,
)
from zss_d2.data.spec.custom import load_custom
from zss_d2.data.spec.locations import prepared_location
from zss_d2.errors import ZssError


def _small_spec() -> dict:
    return {
        "name": "pets",
        "title": "two pets and a bird",
        "classes": ["cat", "dog", "bird"],
        "unseen": ["bird"],
        "ignore_label": 255,
        "raw_to_train": {0: 255, 1: 0, 2: "dog", 7: 2},
        "splits": {"train": {"folder": "train", "expected_images": 3}},
    }


def _write(tmp_path, **changes) -> Path:
    path = tmp_path / "pets.yaml"
    spec = {key: value for key, value in (_small_spec() | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(spec))
    return path


def _load(tmp_path, **changes) -> Benchmark:
    return load_custom(_write(tmp_path, **changes)).benchmark


def _error_of(tmp_path, **changes) -> str:
    with pytest.raises(ZssError) as caught:
        _load(tmp_path, **changes)
    assert str(caught.value).startswith(str(tmp_path / "pets.yaml"))
    return str(caught.value)


def test_voc_has_the_published_classes_split_and_sizes():
    voc = load_benchmark("voc")
    assert len(voc.classes) == 20
    assert (voc.classes[0], voc.classes[14], voc.classes[19]) == (
        "aeroplane",
        "person",
        "tvmonitor",
    )
    assert voc.unseen_names == ("pottedplant", "sheep", "sofa", "train", "tvmonitor")
    assert voc.unseen_ids == (15, 16, 17, 18, 19)
    assert voc.seen_ids == tuple(range(15))
    assert voc.seen_names == voc.classes[:15]
    assert voc.splits["train"].expected_images == 10582
    assert voc.splits["val"].expected_images == 1449


def test_voc_lut_ignores_background_and_void_and_shifts_the_classes():
    lut = load_benchmark("voc").lut
    assert lut.shape == (256,)
    assert lut[[0, 1, 20, 255]].tolist() == [255, 0, 19, 255]
    assert (lut[21:255] == -1).all()


def test_every_spec_in_the_package_is_valid_and_named_after_its_file():
    assert "voc" in available_benchmarks()
    for name in available_benchmarks():
        assert load_benchmark(name).name == name
        assert (SPEC_FOLDER / f"{name}.yaml").is_file()


def test_a_custom_spec_may_have_the_layout_of_the_prepared_benchmarks(tmp_path):
    custom = load_custom(_write(tmp_path))
    pets = custom.benchmark
    assert pets.raw_to_train == {0: 255, 1: 0, 2: 1, 7: 2}
    assert custom.locations["train"] == prepared_location(pets, pets.splits["train"])
    assert pets.splits["train"].expected_images == 3


def test_unseen_classes_are_ordered_by_id_whatever_order_the_spec_uses(tmp_path):
    pets = _load(tmp_path, unseen=["bird", "cat"])
    assert pets.unseen_ids == (0, 2)
    assert pets.unseen_names == ("cat", "bird")
    assert pets.seen_names == ("dog",)


def test_a_data_set_that_is_only_tested_on_has_no_seen_classes(tmp_path):
    pets = _load(tmp_path, unseen="all")
    assert pets.unseen_names == pets.classes
    assert pets.seen_names == ()


def test_a_raw_value_above_255_makes_a_16_bit_table(tmp_path):
    lut = _load(tmp_path, raw_to_train={0: 255, 1: 0, 2: 1, 458: 2}).lut
    assert lut.shape == (65536,)
    assert np.flatnonzero(lut >= 0).tolist() == [0, 1, 2, 458]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unseen": ["brid"]}, ["'unseen'", "'brid'", "did you mean 'bird'"]),
        ({"unseen": ["cat", "dog", "bird"]}, ["'unseen'", "leave at least one"]),
        ({"unseen": "al"}, ["'unseen'", "is 'al'; write a list, such as [sky, dog]"]),
        ({"unseen": ["cat", "cat"]}, ["'unseen'", "'cat' is listed 2 times"]),
        ({"classes": ["cat", "cat", "bird"]}, ["'classes'", "'cat'", "2 times"]),
        ({"classes": []}, ["'classes'", "empty"]),
        (
            {"classes": ["cat", 3]},
            ["'classes.1'", "is 3; write text, in quotes if it looks like a number"],
        ),
        ({"classes": ["cat", " "]}, ["'classes.1'", "is empty"]),
        ({"things": ["brid"]}, ["'things'", "'brid'", "did you mean 'bird'"]),
        ({"raw_to_train": {0: 3, 1: 0, 2: 1, 7: 2}}, ["raw value 0", "to 3", "0..2"]),
        ({"raw_to_train": {"x": 0}}, ["'raw_to_train.x'", "raw value 'x' must be an integer in"]),
        ({"raw_to_train": {70000: 0}}, ["raw value 70000 must be an integer in 0..65535"]),
        ({"raw_to_train": {0: True}}, ["'raw_to_train.0'", "is True; write a whole number"]),
        ({"raw_to_train": {1: 0, 2: "dgo"}}, ["'raw_to_train'", "'dgo' (did you mean 'dog'?)"]),
        ({"raw_to_train": {1: 0, 2: 1}}, ["no raw value maps to 2", "'bird'"]),
        ({"encodings": {"png": {1: 0, 2: 1}}}, ["'encodings'", "no raw value maps to 2"]),
        ({"ignore_label": 1}, ["'ignore_label'", "'dog'"]),
        ({"ignore_label": "255"}, ["'ignore_label'", "is '255'; write a whole number"]),
        (
            {"ignore_label": 70000},
            ["'ignore_label'", "is 70000; it should be less than or equal to 65535"],
        ),
        ({"synonyms": {"dgo": ["hound"]}}, ["'synonyms'", "'dgo'", "did you mean 'dog'"]),
        ({"splits": {}}, ["'splits'", "must name a split or more"]),
        ({"splits": {"train": {"folder": "t"}}}, ["'splits.train'", "'expected_images'"]),
        ({"splits": {"a b": {"folder": "t"}}}, ["'splits.a b'", "may hold only letters"]),
        (
            {"splits": {"a": {"folder": "t", "expected_images": 1, "masks": "m"}}},
            ["'splits.a'", "has a 'folder' and 'images', 'masks' or 'list' too; remove either"],
        ),
        (
            {"splits": {"a": {"folder": "t", "expected_images": 1, "subfolders": True}}},
            ["'splits.a'", "has a 'folder' and"],
        ),
        (
            {"splits": {"a": {"images": "i", "masks": "m", "mask_ending": "_labelIds"}}},
            ["'splits.a.mask_ending'", "'_labelIds' must end in one of .png, .tif"],
        ),
        ({"splits": {"a": {"fodler": "t"}}}, ["'splits.a'", "'fodler' (did you mean 'folder'?)"]),
        ({"splits": "train"}, ["'splits'", "is 'train'; write lines of KEY: VALUE"]),
        ({"classes": "cat"}, ["'classes'", "is 'cat'; write a list, such as [sky, dog]"]),
        ({"splits": {"train": None}}, ["'splits.train'", "is None; write lines of KEY: VALUE"]),
        ({"name": None}, ["'top level'", "'name' is missing"]),
        ({"unsen": []}, ["'top level'", "'unsen'", "did you mean 'unseen'"]),
        ({"name": "two words"}, ["'name'", "'two words'"]),
    ],
)
def test_a_mistake_in_a_spec_is_named_with_file_key_and_value(tmp_path, changes, expected):
    message = _error_of(tmp_path, **changes)
    for part in expected:
        assert part in message
    assert "\n" not in message


def test_unknown_benchmark_suggests_a_known_one():
    with pytest.raises(ZssError, match="did you mean 'voc'.*or the path of a .yaml description"):
        load_benchmark("vocc")
