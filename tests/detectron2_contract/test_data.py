"""Catalogs, samplers, loaders and image reading."""

from __future__ import annotations

import sys
from itertools import islice

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import detection_utils as utils
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from PIL import Image


@pytest.fixture
def dataset():
    """Name of a registered data set of ten records, portrait and landscape in turn."""
    name = "contract_data"
    shapes = [(4, 6), (6, 4)]
    records = [
        {
            "file_name": f"{i}.jpg",
            "image_id": i,
            "height": shapes[i % 2][0],
            "width": shapes[i % 2][1],
        }
        for i in range(10)
    ]
    DatasetCatalog.register(name, lambda: records)
    yield name
    DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)


@pytest.fixture
def as_rank(monkeypatch):
    """Function that makes this process look like ``rank`` of ``world``."""

    def pretend(rank: int, world: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world)
        # Upstream's loader holds its own reference.
        monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: world, raising=False)

    return pretend


def image_id(record: dict) -> int:
    return record["image_id"]


def test_dataset_catalog(dataset):
    assert dataset in DatasetCatalog.list()
    assert len(DatasetCatalog.get(dataset)) == 10
    with pytest.raises(AssertionError, match=dataset):
        DatasetCatalog.register(dataset, list)
    with pytest.raises(KeyError, match="no_such_set.*" + dataset):
        DatasetCatalog.get("no_such_set")


def test_metadata_keeps_its_first_value(dataset):
    meta = MetadataCatalog.get(dataset)
    assert meta.set(stuff_classes=["cat", "dog"], ignore_label=255) is meta
    meta.stuff_classes = ["cat", "dog"]
    with pytest.raises(AssertionError, match="stuff_classes"):
        meta.stuff_classes = ["cow"]
    assert MetadataCatalog.get(dataset) is meta
    assert MetadataCatalog.get(dataset).stuff_classes == ["cat", "dog"]
    assert (meta.name, meta.ignore_label) == (dataset, 255)


def test_metadata_unknown_attribute(dataset):
    meta = MetadataCatalog.get(dataset)
    with pytest.raises(AttributeError, match="stuff_classes.*" + dataset):
        _ = meta.stuff_classes
    assert meta.get("stuff_classes", ["none"]) == ["none"]
    assert meta.get("stuff_classes") is None
    meta.ignore_label = 255
    with pytest.raises(AttributeError, match="ignore_label"):
        _ = meta.evil


@pytest.mark.parametrize(
    ("size", "shares"),
    [(10, [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]), (2, [[0], [1], []]), (3, [[0, 1, 2]])],
)
def test_inference_sampler_splits_exactly(as_rank, size, shares):
    for rank, share in enumerate(shares):
        as_rank(rank, len(shares))
        sampler = InferenceSampler(size)
        assert list(sampler) == share
        assert len(sampler) == len(share)


def test_training_sampler_ranks_share_one_stream(as_rank):
    whole = list(islice(TrainingSampler(7, seed=3), 14))
    assert sorted(whole[:7]) == sorted(whole[7:]) == list(range(7))
    for rank in range(2):
        as_rank(rank, 2)
        assert list(islice(TrainingSampler(7, seed=3), 7)) == whole[rank::2]


def test_training_sampler_arguments():
    streams = [tuple(islice(TrainingSampler(50, seed=seed), 50)) for seed in (1, 1, 2)]
    assert streams[0] == streams[1] != streams[2]


def test_list_dataset_protects_its_records():
    data = DatasetFromList([{"image_id": 0}, {"image_id": 1, "note": "x"}])
    data[1]["image_id"] = 99
    assert len(data) == 2
    assert data[1] == {"image_id": 1, "note": "x"}
    assert [record["image_id"] for record in data] == [0, 1]


def test_list_dataset_keeps_no_record_as_an_object():
    """Reading one would touch its reference count, and so copy its memory into every worker."""
    record = {"image_id": 0}
    before = sys.getrefcount(record)
    data = DatasetFromList([record])
    assert sys.getrefcount(record) == before
    assert data[0] == record


def test_map_dataset():
    data = MapDataset(DatasetFromList([1, 2, 3]), lambda x: 10 * x)
    assert (len(data), data[0], data[2]) == (3, 10, 30)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_repeat_samples(workers):
    sampler = TrainingSampler(12, seed=5)
    loader = build_detection_train_loader(
        dataset=list(range(12)),
        mapper=lambda x: x,
        sampler=sampler,
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
    )
    batches = list(islice(loader, 4))
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert sum(batches, []) == list(islice(sampler, 12))


def test_total_batch_must_divide_over_ranks(as_rank):
    as_rank(0, 2)
    with pytest.raises(AssertionError, match="3"):
        build_detection_train_loader(
            dataset=[1, 2],
            mapper=None,
            sampler=TrainingSampler(2, seed=0),
            total_batch_size=3,
            aspect_ratio_grouping=False,
        )


def test_test_loader_yields_every_record_once(dataset, as_rank):
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS = 0
    assert list(build_detection_test_loader(cfg, dataset, mapper=image_id)) == [
        [i] for i in range(10)
    ]
    as_rank(1, 3)
    loader = build_detection_test_loader(cfg, dataset, mapper=image_id)
    assert list(loader) == [[4], [5], [6]]
    assert len(loader) == 3


def test_records_of_several_data_sets(dataset):
    assert len(get_detection_dataset_dicts([dataset, dataset])) == 20
    DatasetCatalog.register("contract_empty", list)
    try:
        with pytest.raises(AssertionError, match="contract_empty"):
            get_detection_dataset_dicts("contract_empty")
    finally:
        DatasetCatalog.remove("contract_empty")


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[0, 50, 100], [150, 200, 250]]),
        (2, [[100, 50, 0], [250, 200, 150]]),
        (3, [[250, 200, 150], [100, 50, 0]]),
        (6, [[150, 0], [200, 50], [250, 100]]),
        (8, [[100, 250], [50, 200], [0, 150]]),
    ],
)
def test_read_image_applies_exif_orientation(tmp_path, orientation, expected):
    image = Image.fromarray(np.array([[0, 50, 100], [150, 200, 250]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    array = utils.read_image(str(tmp_path / "turned.png"), "L")
    assert array.dtype == np.uint8
    assert array[..., 0].tolist() == expected


def test_read_image_formats(tmp_path):
    pixel = np.array([[[10, 20, 30]]], np.uint8)
    Image.fromarray(pixel).save(tmp_path / "colour.png")
    assert utils.read_image(str(tmp_path / "colour.png"), "RGB").tolist() == pixel.tolist()
    assert utils.read_image(str(tmp_path / "colour.png"), "BGR").tolist() == [[[30, 20, 10]]]

    mask = Image.fromarray(np.array([[0, 1, 255]], np.uint8)).convert("P")
    mask.putpalette([255 - i // 3 for i in range(768)])
    mask.save(tmp_path / "palette.png")
    assert utils.read_image(str(tmp_path / "palette.png")).tolist() == [[0, 1, 255]]
