"""Benchmark specs: the facts of VOC, and what each mistake in a spec says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zss_d2.data.spec.benchmark import SPEC_FOLDER, available_benchmarks, load_benchmark
from zss_d2.errors import ZssError


def _small_spec() -> dict:
    return {
        "name": "pets",
        "title": "two pets and a bird",
        "classes": ["cat", "dog", "bird"],
        "unseen": ["bird"],
        "ignore_label": 255,
        "raw_to_train": {"0": 255, "1": 0, "2": 1, "7": 2},
        "splits": {"train": {"folder": "train", "expected_images": 3}},
    }


def _error_of(tmp_path, **changes) -> str:
    path = tmp_path / "pets.json"
    spec = {key: value for key, value in (_small_spec() | changes).items() if value is not None}
    path.write_text(json.dumps(spec))
    with pytest.raises(ZssError) as caught:
        load_benchmark(path)
    assert str(path) in str(caught.value)
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
        assert (SPEC_FOLDER / f"{name}.json").is_file()


def test_unseen_classes_are_ordered_by_id_whatever_order_the_spec_uses(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(_small_spec() | {"unseen": ["bird", "cat"]}))
    pets = load_benchmark(path)
    assert pets.unseen_ids == (0, 2)
    assert pets.unseen_names == ("cat", "bird")
    assert pets.seen_names == ("dog",)


def test_a_raw_value_above_255_makes_a_16_bit_table(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text(
        json.dumps(_small_spec() | {"raw_to_train": {"0": 255, "1": 0, "2": 1, "458": 2}})
    )
    lut = load_benchmark(path).lut
    assert lut.shape == (65536,)
    assert np.flatnonzero(lut >= 0).tolist() == [0, 1, 2, 458]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unseen": ["brid"]}, ["'unseen'", "'brid'", "did you mean 'bird'"]),
        ({"unseen": ["cat", "dog", "bird"]}, ["'unseen'", "leave at least one"]),
        ({"classes": ["cat", "cat", "bird"]}, ["'classes'", "'cat'", "2 times"]),
        ({"classes": []}, ["'classes'", "empty"]),
        ({"classes": ["cat", 3]}, ["'classes'", "not 3"]),
        ({"raw_to_train": {"0": 3, "1": 0, "2": 1, "7": 2}}, ["raw value 0", "to 3", "0..2"]),
        ({"raw_to_train": {"x": 0}}, ["'raw_to_train'", "'x'"]),
        ({"raw_to_train": {"1": 0, "2": 1}}, ["no raw value maps to 2", "'bird'"]),
        ({"ignore_label": 1}, ["'ignore_label'", "'dog'"]),
        ({"ignore_label": "255"}, ["'ignore_label'", "'255'"]),
        ({"synonyms": {"dgo": ["hound"]}}, ["'synonyms'", "'dgo'", "did you mean 'dog'"]),
        ({"splits": {}}, ["'splits'"]),
        ({"splits": {"train": {"folder": "train"}}}, ["'splits.train'", "'expected_images'"]),
        ({"title": None}, ["'title'", "missing"]),
        ({"unsen": []}, ["'unsen'", "did you mean 'unseen'"]),
        ({"name": "two words"}, ["'name'", "'two words'"]),
    ],
)
def test_a_mistake_in_a_spec_is_named_with_file_key_and_value(tmp_path, changes, expected):
    message = _error_of(tmp_path, **changes)
    for part in expected:
        assert part in message
    assert "\n" not in message


def test_invalid_json_names_the_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{\n"name": "x",\n"title" 3\n}')
    with pytest.raises(ZssError, match=r"broken\.json: line 3"):
        load_benchmark(path)


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.json"
    path.write_text('{"name": "a", "name": "b"}')
    with pytest.raises(ZssError, match="'name' is given twice"):
        load_benchmark(path)


def test_unknown_benchmark_suggests_a_known_one(tmp_path):
    with pytest.raises(ZssError, match="did you mean 'voc'"):
        load_benchmark("vocc")
    with pytest.raises(ZssError, match=r"absent\.json"):
        load_benchmark(tmp_path / "absent.json")
