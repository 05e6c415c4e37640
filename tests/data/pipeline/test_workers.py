"""Loader workers: one core each, those of the process, and every record as a copy of its own."""

from __future__ import annotations

import os
from itertools import islice

import cv2
import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from zss_d2.data.pipeline import workers
from zss_d2.data.pipeline.augmentation import ColourTransform
from zss_d2.data.pipeline.loader import build_train_loader
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.prepare import check_command
from zss_d2.utils.cores import cpu_cores


class Machine(T.Augmentation):
    """Paints an image with what its process may use: threads of OpenCV, of torch, and cores."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        found = cv2.getNumThreads(), torch.get_num_threads(), len(cpu_cores())
        return ColourTransform(lambda pixels, _: np.full_like(pixels, found), 0.0)


@pytest.fixture
def one_core():
    """This process on one of its cores, for a while."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system knows no affinity")
    cores = cpu_cores()
    os.sched_setaffinity(0, cores[:1])
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def threads():
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(4)
    torch.set_num_threads(4)
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


def test_a_worker_takes_one_thread_and_the_cores_of_its_process(
    datasets, make_cfg, threads, one_core, monkeypatch
):
    monkeypatch.setattr(workers, "_begun", False)
    cfg = make_cfg("DATALOADER.NUM_WORKERS", 1, "SOLVER.IMS_PER_BATCH", 2)
    monkeypatch.setattr(
        ZeroShotMapper,
        "from_config",
        classmethod(lambda cls, cfg, is_train: {"is_train": True, "augmentations": [Machine()]}),
    )
    for batch in islice(build_train_loader(cfg), 2):
        for item in batch:
            opencv, torchs, cores = item["image"].flatten(1).unique(dim=1).flatten().tolist()
            assert (opencv, torchs, cores) == (1, 1, 1)
    assert (cv2.getNumThreads(), torch.get_num_threads()) == (4, 4)


def test_the_main_process_keeps_its_threads(datasets, threads):
    (record, *_) = DatasetCatalog.get("zss_voc_train")
    image = ZeroShotMapper(is_train=True, augmentations=[Machine()])(record)["image"]
    assert image[:2, 0, 0].tolist() == [4, 4]


def test_commands_use_the_cores_of_their_process_by_default(one_core):
    assert check_command.make_parser().parse_args(["voc"]).workers == 1
