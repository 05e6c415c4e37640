"""The stream of training images: entered anywhere, the same for any number of processes."""

from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from zss_d2.data.pipeline.loader import build_train_loader
from zss_d2.data.pipeline.stream import ImageStream
from zss_d2.utils.random_streams import STEP, own_streams, seed_streams, undisturbed


def draws(stream: ImageStream, count: int) -> list[tuple[int, int]]:
    return [tuple(draw) for draw in islice(stream, count)]


def test_the_order_is_that_of_detectron2():
    stream = ImageStream(5, seed=3)
    expected = list(islice(TrainingSampler(5, seed=3), 23))
    assert draws(stream, 23) == list(enumerate(expected))


@pytest.mark.parametrize("position", [1, 4, 5, 12])
def test_a_stream_goes_on_where_it_is_entered(position):
    whole = draws(ImageStream(5, seed=3), 30)
    stream = ImageStream(5, seed=3)
    stream.position = position
    assert draws(stream, 30 - position) == whole[position:]


@pytest.mark.parametrize("processes", [2, 3])
def test_batches_of_all_processes_together_do_not_depend_on_their_number(processes, monkeypatch):
    whole = draws(ImageStream(7, seed=0), 36)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        stream = ImageStream(7, seed=0)
        stream.position = 6
        shares.append(draws(stream, 30 // processes))
    batch = 6
    for number in range(5):
        share = slice(number * batch // processes, (number + 1) * batch // processes)
        together = sorted(draw for own in shares for draw in own[share])
        assert together == whole[6 + number * batch : 6 + (number + 1) * batch]


def batches(cfg, workers: int, start: int, count: int) -> list[list[dict]]:
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(cfg)
    loader.stream.position = start * cfg.SOLVER.IMS_PER_BATCH
    return list(islice(loader, count))


def equal(ones: list[list[dict]], others: list[list[dict]]) -> bool:
    return all(
        one["file_name"] == other["file_name"]
        and torch.equal(one["image"], other["image"])
        and torch.equal(one["sem_seg"], other["sem_seg"])
        for a, b in zip(ones, others, strict=True)
        for one, other in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 3])
def test_images_and_augmentation_depend_on_the_position_alone(toy_voc, make_cfg, workers):
    """Not on loader workers, the iteration that the loader starts at, or what others draw."""
    cfg = make_cfg("SOLVER.IMS_PER_BATCH", 2)
    whole = batches(cfg, 1, 0, 6)
    np.random.seed(7)
    torch.manual_seed(7)
    assert equal(batches(cfg, workers, 2, 4), whole[2:])
    assert not equal(whole[:1], whole[4:5])
    cfg.SEED = 1
    assert not equal(batches(cfg, workers, 2, 4), whole[2:])


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_streams_of_the_main_process(toy_voc, make_cfg, workers):
    def drawn() -> tuple:
        return torch.rand(()).item(), np.random.rand()

    seed_streams(STEP, 0, 5)
    expected = drawn(), drawn()
    seed_streams(STEP, 0, 5)
    first = drawn()
    batches(make_cfg(), workers, 0, 2)
    assert (first, drawn()) == expected


def test_streams_differ_by_every_number_and_are_put_back():
    def drawn(*numbers: int) -> float:
        with own_streams(*numbers):
            return torch.rand(()).item() + np.random.rand()

    values = {drawn(*numbers) for numbers in ((1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0))}
    assert len(values) == 4
    assert drawn(1, 0, 0) == drawn(1, 0, 0)
    seed_streams(9)
    expected = torch.rand(3)
    seed_streams(9)
    with undisturbed():
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)
