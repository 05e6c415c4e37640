"""Processes, events and their writers, logging, seeds, files, environment report."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import detectron2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)
from detectron2.utils.file_io import PathHandler, PathManager
from detectron2.utils.logger import (
    log_first_n,
    setup_logger,
)


def test_comm_in_one_process() -> None:
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert comm.get_local_rank() == 0
    assert comm.is_main_process()
    comm.synchronize()
    assert comm.all_gather({"a": 1}) == [{"a": 1}]
    assert comm.gather("x") == ["x"]
    np.random.seed(3)
    seed = comm.shared_random_seed()
    np.random.seed(3)
    assert seed == comm.shared_random_seed()
    assert 0 <= seed < 2**31


def _exchange(rank: int, folder: str) -> None:
    """Body of each of four processes on two pretended machines; leaves what it saw in a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=4)
    comm.create_local_process_group(2)
    np.random.seed(rank)
    seen = {
        "world": [comm.get_world_size(), comm.get_rank(), comm.is_main_process()],
        "local": comm.get_local_rank(),
        "all": comm.all_gather({"rank": rank}),
        "gathered": comm.gather(rank),
        "seed": comm.shared_random_seed(),
    }
    comm.synchronize()
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


@pytest.mark.slow
def test_comm_between_processes(tmp_path: Path) -> None:
    mp.spawn(_exchange, args=(str(tmp_path),), nprocs=4)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    assert [one["world"] for one in seen] == [[4, rank, rank == 0] for rank in range(4)]
    assert [one["local"] for one in seen] == [0, 1, 0, 1]
    assert [one["all"] for one in seen] == [[{"rank": rank} for rank in range(4)]] * 4
    assert [one["gathered"] for one in seen] == [[0, 1, 2, 3], [], [], []]
    assert len({one["seed"] for one in seen}) == 1


def test_storages_nest() -> None:
    assert not has_event_storage()
    with pytest.raises(AssertionError):
        get_event_storage()
    with EventStorage(3) as outer:
        assert get_event_storage() is outer
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert not has_event_storage()


def test_scalars() -> None:
    with EventStorage(10) as storage:
        storage.put_scalar("loss", torch.tensor(4.0))
        storage.iter += 1
        storage.put_scalars(loss=2.0, accuracy=1)
        storage.put_scalar("val/miou", 50.0, smoothing_hint=False)
        storage.put_scalar("late", 7.0, cur_iter=3)
        assert storage.iter == 11
        assert storage.latest() == {
            "loss": (2.0, 11),
            "accuracy": (1.0, 11),
            "val/miou": (50.0, 11),
            "late": (7.0, 3),
        }
        assert storage.history("loss").values() == [(4.0, 10), (2.0, 11)]
        with pytest.raises(KeyError):
            storage.history("absent")
        with pytest.raises(AssertionError):
            storage.put_scalar("val/miou", 1.0, smoothing_hint=True)
        storage.iter = 20
        assert storage.iter == 20


def test_smoothing_takes_the_median_of_the_last_iterations() -> None:
    with EventStorage() as storage:
        for value in (100.0, 1.0, 5.0, 3.0):
            storage.put_scalar("smooth", value)
            storage.put_scalar("raw", value, smoothing_hint=False)
            storage.iter += 1
        assert storage.count_samples("smooth", 3) == 3
        assert storage.latest_with_smoothing_hint(3) == {"smooth": (3.0, 3), "raw": (3.0, 3)}
        assert storage.latest_with_smoothing_hint(4)["smooth"] == (4.0, 3)
        # The window counts iterations, not values.
        storage.put_scalar("smooth", 9.0, cur_iter=10)
        assert storage.count_samples("smooth", 3) == 1
        assert storage.latest_with_smoothing_hint(3)["smooth"] == (9.0, 10)


def test_json_lines_survive_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    for start in (0, 2):
        writer = JSONWriter(str(path))
        with EventStorage(start) as storage:
            for iteration in (start, start + 1):
                storage.put_scalar("loss", iteration / 2, smoothing_hint=False)
                writer.write()
                writer.write()
                storage.iter += 1
        writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"iteration": number, "loss": number / 2} for number in range(4)]


def test_json_line_per_iteration_that_has_news(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writer = JSONWriter(str(path))
    with EventStorage() as storage:
        storage.put_scalar("early", 1.0)
        storage.iter += 1
        storage.put_scalar("lr", 0.5, smoothing_hint=False)
        writer.write()
    writer.close()
    lines = sorted((json.loads(line) for line in path.read_text().splitlines()), key=str)
    assert lines == [{"early": 1.0, "iteration": 0}, {"iteration": 1, "lr": 0.5}]


def test_tensorboard_gets_scalars(tmp_path: Path) -> None:
    writer = TensorboardXWriter(str(tmp_path))
    writer.close()
    with EventStorage(4) as storage:
        storage.put_scalar("loss", 2.5)
        writer.write()
    writer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(4, 2.5)]


def test_tensorboard_gets_images_once(tmp_path: Path) -> None:
    writer = TensorboardXWriter(str(tmp_path))
    image = np.zeros((3, 4, 6), np.uint8)
    with EventStorage(4) as storage:
        storage.put_image("a", image)
        storage.put_image("b", image)
        writer.write()
        writer.write()
        assert not storage._vis_data
    writer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["images"] == ["a", "b"]
    assert [(x.step, x.width, x.height) for x in events.Images("b")] == [(4, 6, 4)]


def _printed(printer: CommonMetricPrinter, caplog: pytest.LogCaptureFixture) -> str:
    """The line that ``write`` logs; "" for none."""
    logger = logging.getLogger("detectron2.utils.events")
    caplog.clear()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            printer.write()
    finally:
        logger.removeHandler(caplog.handler)
    return caplog.messages[0] if caplog.messages else ""


def test_metric_line(caplog: pytest.LogCaptureFixture) -> None:
    with EventStorage() as storage:
        for iteration in range(3):
            storage.iter = iteration
            storage.put_scalars(total_loss=float(iteration), time=20.0, data_time=0.25, other=1.0)
            storage.put_scalar("lr", 0.125, smoothing_hint=False)
        line = _printed(CommonMetricPrinter(max_iter=10), caplog)
        # 7 iterations of 20 s are left.
        for field in ("eta: 0:02:20", "iter: 2", "total_loss: 1", "time: 20.0000", "lr: 0.125"):
            assert field in line
        assert "data_time: 0.2500" in line
        assert "other" not in line
        assert storage.latest()["eta_seconds"] == (140.0, 2)
        storage.iter = 10
        assert _printed(CommonMetricPrinter(max_iter=10), caplog) == ""


def test_metric_line_before_anything_is_timed(caplog: pytest.LogCaptureFixture) -> None:
    with EventStorage() as storage:
        storage.put_scalar("loss_focal", 0.5)
        line = _printed(CommonMetricPrinter(max_iter=10), caplog)
    assert "loss_focal: 0.5" in line
    assert "lr: N/A" in line


def test_writer_base() -> None:
    with pytest.raises(NotImplementedError):
        EventWriter().write()
    EventWriter().close()


def test_log_file_and_console(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    logger = setup_logger(str(tmp_path), name="contract.main", abbrev_name="short")
    assert setup_logger(str(tmp_path), name="contract.main", abbrev_name="short") is logger
    logging.getLogger("contract.main.child").info("hello %d", 5)
    assert len(logger.handlers) == 2
    printed = capsys.readouterr().out
    assert printed.count("hello 5") == 1
    assert "short.child" in printed
    text = (tmp_path / "log.txt").read_text()
    assert "child INFO: hello 5" in text
    logger.handlers.clear()


def test_log_of_other_ranks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    logger = setup_logger(str(tmp_path / "train.log"), distributed_rank=1, name="contract.rank")
    logger.warning("from rank 1")
    assert "from rank 1" in (tmp_path / "train.log.rank1").read_text()
    assert capsys.readouterr().out == ""
    logger.handlers.clear()


def test_rate_limited_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for number in range(5):
            log_first_n(logging.INFO, f"first {number}", n=2)
            log_first_n(logging.INFO, "same text", key="message")
            log_first_n(logging.INFO, f"named {number}", name="contract.named")
        log_first_n(logging.INFO, "same text", key="message")
    assert caplog.messages == ["first 0", "same text", "named 0", "first 1"]
    assert {record.name for record in caplog.records} == {__name__, "contract.named"}


def test_seed_all_rng() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_all_rng(11)
    first = draw()
    assert draw() != first
    seed_all_rng(11)
    assert draw() == first
    seed_all_rng(None)
    assert draw() != first


def test_path_manager(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    PathManager.mkdirs(str(folder))
    with PathManager.open(str(folder / "file.txt"), "w") as file:
        file.write("text")
    assert PathManager.isfile(str(folder / "file.txt"))
    assert PathManager.exists(str(folder))
    assert PathManager.ls(str(folder)) == ["file.txt"]
    assert PathManager.get_local_path(str(folder)) == str(folder)
    assert PathHandler.__module__.startswith("iopath")


def test_environment_report() -> None:
    report = collect_env_info()
    for part in (detectron2.__version__, torch.__version__, np.__version__, "Python", "GPU"):
        assert part in report
