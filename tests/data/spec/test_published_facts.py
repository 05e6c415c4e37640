"""The specs against the facts compiled from the published code, stated here a second time."""

from __future__ import annotations

import hashlib
import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from zss_d2.data.labels import build_lut
from zss_d2.data.prepare.check import require_names
from zss_d2.data.spec.benchmark import load_benchmark

COCO_UNSEEN = [19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160]
COCO_UNSEEN_RAW = [20, 24, 32, 33, 40, 56, 86, 99, 105, 123, 144, 147, 148, 168, 171]
COCO_EMPTY_RAW = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
CONTEXT_UNSEEN = [0, 6, 7, 14, 19, 24, 31, 33, 48, 54]

# Classes, unseen ids, images for training and validation, and digests of the class list and of the
# raw ids that the sources map.
FACTS = {
    "voc": (20, [15, 16, 17, 18, 19], 10582, 1449, "ce42b86533b1c85e", "d81738f775bd8f51"),
    "voc21": (21, [16, 17, 18, 19, 20], 10582, 1449, "fd55ca4d47c05e3b", "9cb0861622455c63"),
    "coco_stuff": (171, COCO_UNSEEN, 118287, 5000, "0d1caff40f22c2f8", "358df3de66862122"),
    "ade20k150": (150, list(range(150)), 20210, 2000, "e3305abd7ad15706", "80e3b2013c7eec78"),
    "cityscapes": (19, list(range(19)), 2975, 500, "43e2f291fae08a61", "f3a13a7ee5be5eb9"),
    "context59": (59, CONTEXT_UNSEEN, 4996, 5104, "1b6cf50d90a6d735", "67dd4df64cb4ad1a"),
    "context60": (
        60,
        [i + 1 for i in CONTEXT_UNSEEN],
        4996,
        5104,
        "788b24f49965d55c",
        "36b84aefc325f6b9",
    ),
}


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", FACTS)
def test_counts_names_ids_and_maps_are_the_published_ones(name):
    number, unseen, train, val, names_digest, map_digest = FACTS[name]
    benchmark = load_benchmark(name)
    assert len(benchmark.classes) == number
    assert digest(list(benchmark.classes)) == names_digest
    assert list(benchmark.unseen_ids) == unseen
    assert len(benchmark.seen_ids) == number - len(unseen)
    assert benchmark.splits["train"].expected_images == train
    assert benchmark.splits["val"].expected_images == val
    mapping = benchmark.raw_to_train
    if name.startswith("context"):
        background = benchmark.raw_to_train[0]
        mapping = {r: t for r, t in mapping.items() if r == 0 or t != background}
        assert set(benchmark.raw_to_train) == set(range(460))
    assert digest(mapping) == map_digest


def test_coco_unseen_raw_ids_and_ids_without_annotation():
    coco = load_benchmark("coco_stuff")
    raw = sorted(r for r, t in coco.raw_to_train.items() if t in coco.unseen_ids)
    assert raw == COCO_UNSEEN_RAW
    undefined = [r for r in range(182) if coco.lut[r] < 0]
    assert undefined == COCO_EMPTY_RAW
    assert (coco.lut[182:255] == -1).all()
    assert coco.things == coco.classes[:80]
    assert coco.unseen_names == (
        *("cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors"),
        *("cardboard", "clouds", "grass", "playingfield", "river", "road", "tree"),
        "wall-concrete",
    )


def test_ade20k_counts_from_other_objects_and_calls_classes_by_their_first_name():
    ade = load_benchmark("ade20k150")
    assert ade.raw_to_train == {0: 255} | {i + 1: i for i in range(150)}
    at = {1: "wall", 13: "person", 21: "car", 46: "counter", 59: "screen door", 90: "television"}
    at |= {111: "stool", 126: "pot", 131: "screen", 139: "ashcan", 150: "flag"}
    assert {raw: ade.classes[raw - 1] for raw in at} == at
    assert ade.synonyms["windowpane"] == ("window",)
    # Names that the list gives to two classes stand for neither, as CLIP could not tell them apart.
    words = [*ade.classes, *(w for more in ade.synonyms.values() for w in more)]
    assert len(words) == len(set(words)) == 326
    assert "ground" not in words
    assert require_names([ade], "ViT-B-16", synonyms=True) == []


def test_cityscapes_has_19_of_34_ids_and_the_rest_is_void():
    city = load_benchmark("cityscapes")
    raw = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    assert {r: t for r, t in city.raw_to_train.items() if t != 255} == dict(
        zip(raw, range(19), strict=True)
    )
    assert set(city.raw_to_train) == set(range(34))
    names = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light")
    assert city.classes[:7] == names
    assert city.things == city.classes[11:]


def test_the_two_context_conventions_differ_by_background_only():
    with_ground, without = load_benchmark("context60"), load_benchmark("context59")
    assert with_ground.classes == ("background", *without.classes)
    assert with_ground.unseen_names == without.unseen_names
    assert "background" in with_ground.seen_names
    shifted = {r: 255 if t == 0 else t - 1 for r, t in with_ground.raw_to_train.items()}
    assert shifted == without.raw_to_train


def test_voc_with_background_is_voc_but_for_class_0():
    with_ground, without = load_benchmark("voc21"), load_benchmark("voc")
    assert with_ground.classes == ("background", *without.classes)
    assert with_ground.unseen_names == without.unseen_names
    assert with_ground.things == without.things
    assert with_ground.synonyms == without.synonyms
    assert with_ground.splits == without.splits
    shifted = {r: t - 1 if 0 < t < 255 else 255 for r, t in with_ground.raw_to_train.items()}
    assert shifted == without.raw_to_train
    assert with_ground.raw_to_train[0] == 0


def test_context_png_orders_name_the_same_classes_differently():
    context = load_benchmark("context59")
    alphabetical = build_lut(context.encodings["png_alphabetical"])
    voc_first = build_lut(context.encodings["png_voc_first"])
    assert [context.classes[alphabetical[i]] for i in (1, 2, 15, 59)] == [
        *("aeroplane", "bag", "cat", "wood"),
    ]
    assert [context.classes[voc_first[i]] for i in (1, 2, 15, 28, 52, 59)] == [
        *("aeroplane", "bicycle", "person", "cloth", "bedclothes", "wood"),
    ]
    for table in (alphabetical, voc_first):
        assert sorted(table[1:60]) == list(range(59))
        assert table[[0, 255]].tolist() == [255, 255]


@pytest.mark.parametrize("name", [*FACTS, "mini"])
def test_every_split_is_registered_with_seen_unseen_and_things(name):
    benchmark = load_benchmark(name)
    for split in benchmark.splits:
        assert f"zss_{name}_{split}" in DatasetCatalog.list()
        metadata = MetadataCatalog.get(f"zss_{name}_{split}")
        assert metadata.unseen_classes == list(benchmark.unseen_names)
        assert set(metadata.seen_classes) | set(metadata.unseen_classes) == set(benchmark.classes)
        assert metadata.thing_classes == list(benchmark.things)
    assert len(load_benchmark("voc").things) == 20
    assert len(load_benchmark("mini").things) == 25
