"""Processes: ranks, gathering, shares of the data, distributed evaluation."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.engine import launch
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from PIL import Image


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch):
    """These tests start more processes than there may be GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def report(folder: str, content: object) -> None:
    (Path(folder) / f"{comm.get_rank()}.json").write_text(json.dumps(content))


def reports(folder: Path) -> list:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def describe_process(folder: str, word: str) -> None:
    rank = comm.get_rank()
    report(
        folder,
        {
            "word": word,
            "size": comm.get_world_size(),
            "rank": [rank, comm.get_local_rank(), comm.is_main_process()],
            "gathered": comm.gather({"rank": rank}),
            "everywhere": comm.all_gather("x" * (rank + 1)),
            "share": list(InferenceSampler(5)),
            "seed": comm.shared_random_seed(),
            "metrics": evaluate_share(folder),
        },
    )


def fail_on_rank_1() -> None:
    if comm.get_rank() == 1:
        raise RuntimeError("rank 1 gives up")
    comm.synchronize()


def evaluate_share(folder: str) -> dict | None:
    """Score this process's share of the masks in a folder with predictions drawn by index."""
    masks = sorted(Path(folder).glob("*.png"))
    records = [{"file_name": path.name, "sem_seg_file_name": str(path)} for path in masks]
    DatasetCatalog.register("contract_share", lambda: records)
    MetadataCatalog.get("contract_share").set(stuff_classes=["cat", "dog"], ignore_label=255)
    evaluator = SemSegEvaluator("contract_share")
    evaluator._compute_boundary_iou = False
    evaluator.reset()
    for index in InferenceSampler(len(records)):
        generator = torch.Generator().manual_seed(index)
        scores = torch.rand(2, 6, 6, generator=generator)
        evaluator.process([records[index]], [{"sem_seg": scores}])
    return evaluator.evaluate()


@pytest.fixture
def folder(tmp_path):
    """Folder of five masks with two classes and ignored pixels."""
    rng = np.random.default_rng(0)
    for index in range(5):
        mask = rng.choice([0, 1, 255], (6, 6)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / f"{index}.png")
    yield tmp_path
    if "contract_share" in DatasetCatalog.list():
        DatasetCatalog.remove("contract_share")
        MetadataCatalog.remove("contract_share")


def test_two_processes_and_one(folder):
    launch(describe_process, 2, dist_url="auto", args=(str(folder), "pair"))
    first, second = reports(folder)
    assert first["word"] == second["word"] == "pair"
    assert first["size"] == second["size"] == 2
    assert (first["rank"], second["rank"]) == ([0, 0, True], [1, 1, False])
    assert first["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert second["gathered"] == []
    assert first["everywhere"] == second["everywhere"] == ["x", "xx"]
    assert (first["share"], second["share"]) == ([0, 1, 2], [3, 4])
    assert first["seed"] == second["seed"]

    launch(describe_process, 1, args=(str(folder), "alone"))
    only = reports(folder)[0]
    assert only["word"] == "alone"
    assert only["size"] == 1
    assert only["rank"] == [0, 0, True]
    assert only["gathered"] == [{"rank": 0}]
    assert only["share"] == [0, 1, 2, 3, 4]

    assert 0 < only["metrics"]["sem_seg"]["mIoU"] < 100
    assert first["metrics"] == only["metrics"]
    assert second["metrics"] is None


def test_two_machines(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    arguments = {"num_machines": 2, "dist_url": url, "args": (str(folder), "far")}
    with ThreadPoolExecutor() as machines:
        jobs = [
            machines.submit(launch, describe_process, 1, machine_rank=rank, **arguments)
            for rank in range(2)
        ]
        for job in jobs:
            job.result(60)
    first, second = reports(folder)
    assert first["size"] == second["size"] == 2
    assert (first["rank"], second["rank"]) == ([0, 0, True], [1, 0, False])
    assert first["everywhere"] == ["x", "xx"]


def test_auto_url_is_for_one_machine():
    with pytest.raises(AssertionError, match="auto"):
        launch(describe_process, 1, num_machines=2, dist_url="auto")


def test_failure_of_a_process_reaches_the_caller():
    with pytest.raises(Exception, match="rank 1 gives up"):
        launch(fail_on_rank_1, 2, dist_url="auto")
