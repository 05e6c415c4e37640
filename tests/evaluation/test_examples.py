"""Pictures of fixed test images that evaluations during a training leave for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from zss_d2.engine import ZeroShotTrainer
from zss_d2.engine.testing import showing_examples
from zss_d2.evaluation.examples import Examples
from zss_d2.utils.sampling import evenly_spaced


@pytest.mark.parametrize(
    ("size", "number", "expected"),
    [
        (5, 2, [1, 3]),
        (4, 4, [0, 1, 2, 3]),
        (3, 8, [0, 1, 2]),
        (100, 4, [12, 37, 62, 87]),
    ],
)
def test_images_are_evenly_spaced(size, number, expected):
    assert evenly_spaced(size, number) == expected


class SaysTwo(nn.Module):
    """Class 2 everywhere."""

    def forward(self, batch: list[dict]) -> list[dict]:
        scores = torch.zeros(20, 30, 40)
        scores[2] = 1
        return [{"sem_seg": scores} for _ in batch]


def test_only_the_chosen_images_of_the_data_set_are_kept(toy_voc):
    examples, model = Examples("zss_voc_val", 2), SaysTwo()
    handle = examples.watch(model)
    records = DatasetCatalog.get("zss_voc_val")
    others = [{**record, "dataset_name": "another"} for record in records]
    model(others)
    assert list(examples.pictures()) == []
    for start in range(0, len(records), 2):
        model(records[start : start + 2])
    handle.remove()
    model(others)
    pictures = dict(examples.pictures())
    stems = [Path(records[index]["file_name"]).stem for index in (1, 3)]
    assert list(pictures) == [f"zss_voc_val/{stem}" for stem in stems]


def test_each_process_brings_those_of_its_share(toy_voc, monkeypatch):
    mine, other = Examples("zss_voc_val", 2), Examples("zss_voc_val", 2)
    first, second = mine.records
    for examples, record in ((mine, first), (other, second)):
        model = SaysTwo()
        examples.watch(model)
        model([record])
    gathered = [mine._labels, other._labels]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda own: gathered)
    assert len(list(mine.pictures())) == 2
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert list(other.pictures()) == []


def test_outside_a_training_and_with_none_wanted_nothing_is_kept(toy_voc, make_cfg):
    model = SaysTwo()
    with showing_examples(make_cfg(), model):
        assert not model._forward_hooks
    with EventStorage(), showing_examples(make_cfg("TEST.SHOW_IMAGES", 0), model):
        assert not model._forward_hooks
    with EventStorage() as storage:
        with showing_examples(make_cfg("TEST.SHOW_IMAGES", 3), model):
            assert len(model._forward_hooks) == 1
            model(DatasetCatalog.get("zss_voc_val"))
        assert not model._forward_hooks
        assert len(storage._vis_data) == 3


def test_tensorboard_gets_them_at_every_evaluation(toy_voc, make_cfg):
    cfg = make_cfg(
        *("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "TEST.SHOW_IMAGES", 2),
        *("DATALOADER.NUM_WORKERS", 0),
    )
    Path(cfg.OUTPUT_DIR).mkdir()
    seed_all_rng(0)
    ZeroShotTrainer(cfg).train()
    events = EventAccumulator(cfg.OUTPUT_DIR, {"images": 0, "scalars": 0}).Reload()
    tags = events.Tags()
    assert len(tags["images"]) == 2
    for tag in tags["images"]:
        assert tag.startswith("examples/zss_voc_val/")
        shown = events.Images(tag)
        assert [event.step for event in shown] == [1, 4]
        assert shown[0].encoded_image_string.startswith(b"\x89PNG")
    assert {"max_mem", "data_time", "time", "sem_seg/mIoU"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("max_mem")] == [1, 3, 4]
