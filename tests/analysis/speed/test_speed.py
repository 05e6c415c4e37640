"""``zss speed``: rounds, ratios, scores, files, and what cannot be compared."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from tests.modeling.clip_zss.test_clip_zss import TINY
from zss_d2.analysis.commands.speed import main
from zss_d2.analysis.over_runs.statistics import Mean
from zss_d2.analysis.speed import session, timing
from zss_d2.analysis.speed.picture import Point, draw
from zss_d2.drawing.figures import encode
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer

CPU = torch.device("cpu")


class Clock:
    """Time that passes only in calls, by so many seconds each time in turn."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def call(self, *seconds: float):
        left = list(seconds)

        def work() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


def test_rounds_are_in_turn_and_calls_as_many_as_a_measurement_needs(monkeypatch):
    clock, order = Clock(monkeypatch), []
    slow, fast = clock.call(9.0, 0.5), clock.call(3.0, 0.04)  # the first calls prepare
    calls = {
        "slow": lambda: (order.append("s"), slow()),
        "fast": lambda: (order.append("f"), fast()),
    }
    found = timing.rounds_in_turn(calls, 2, CPU)
    assert found == {"slow": pytest.approx([2.0] * 2), "fast": pytest.approx([25.0] * 2)}
    assert "".join(order) == "ss" + "ff" + 2 * ("s" + "fff")  # 0.1 s are three calls of 0.04
    assert timing.ratios(found, "fast", "slow") == pytest.approx([12.5] * 2)


def test_a_measurement_has_a_limit(monkeypatch):
    clock = Clock(monkeypatch)
    before = clock.now
    timing.rounds_in_turn({"a": clock.call(1e-6)}, 1, CPU)
    assert clock.now - before == pytest.approx((2 + timing.MOST_CALLS) * 1e-6)


def test_the_device_has_a_name():
    assert f"{torch.get_num_threads()} thread" in timing.describe_device(CPU)


@pytest.fixture
def save_run(toy_voc, make_cfg, tmp_path):
    """Save an untrained run with a result and return its folder."""

    def save(place: str, *overrides: object, score: float | None = None) -> Path:
        folder = tmp_path / place
        cfg = make_cfg("OUTPUT_DIR", str(folder), *overrides)
        model = ZeroShotTrainer.build_model(cfg).eval()
        ZeroShotTrainer.test(cfg, model)
        ZeroShotCheckpointer(model, str(folder)).save("model_final")
        (folder / "config.yaml").write_text(cfg.dump())
        if score is not None:
            results = json.loads((folder / "results.json").read_text())
            results["zss_voc_val"]["hIoU"] = score
            (folder / "results.json").write_text(json.dumps(results))
        return folder

    return save


def test_seeds_are_one_point_and_methods_several(save_run, tmp_path, capsys):
    runs = [save_run(f"r/ldvc/seed{i}", "SEED", i, score=10.0 + i) for i in (0, 1)]
    runs.append(save_run("r/clip_zss/seed0", *TINY, score=30.0))
    output = tmp_path / "out"
    assert main([*map(str, runs), "--output", str(output), "--rounds", "2", "--size", "64"]) == 0
    printed = capsys.readouterr().out
    rows = [x.split("|")[1:-1] for x in printed.splitlines() if x.startswith("| ")][1:]
    assert [(x[0].strip(), x[1].strip()) for x in rows] == [
        ("ldvc", "2"),
        ("clip_zss/seed0", "1"),
    ]
    assert [x[4].strip() for x in rows] == ["10.5 ± 6.4", "30.0"]
    assert rows[0][3].strip() == "1.00 (1.00 to 1.00)"
    assert "64 x 64" in printed
    assert "protocols differ" not in printed
    found = json.loads((output / "speed.json").read_text())
    ldvc = found["groups"]["ldvc"]
    assert len(ldvc["images per second"]) == 2
    assert min(ldvc["images per second"]) <= ldvc["median"] <= max(ldvc["images per second"])
    assert ldvc["score"] == {"value": 10.5, "half": pytest.approx(6.353, 1e-3), "runs": 2}
    assert imread(output / "speed.png").shape[1] > 600


def test_a_run_without_a_score_is_timed_and_said(save_run, tmp_path, capsys):
    run, output = save_run("run"), tmp_path / "out"
    (run / "results.json").unlink()
    assert main([str(run), "--output", str(output), "--rounds", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"note: without a score: {run}")
    assert "| -" in printed.out
    assert not (output / "speed.png").exists()
    assert "speed.png" not in printed.out


def test_the_first_test_image_is_timed_where_no_size_is_given(save_run, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([str(save_run("run")), "--output", str(output), "--rounds", "1"]) == 0
    found = json.loads((output / "speed.json").read_text())
    cfg = session.load_configs([tmp_path / "run"])[0][0]
    assert list(session._image(cfg, "zss_voc_val", 0).shape[1:]) == [
        found["height"],
        found["width"],
    ]


def test_other_protocols_are_told(save_run, tmp_path, capsys):
    runs = [save_run("r/a"), save_run("r/b", "TEST.FLIP", True)]
    command = [*map(str, runs), "--output", str(tmp_path / "out"), "--rounds", "1"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Their test protocols differ:")
    assert "no flip" in lines[start + 2]
    assert "no flip" not in lines[start + 3]


def test_what_is_not_there_is_one_line(save_run, tmp_path, capsys):
    run, output = save_run("run"), str(tmp_path / "out")
    assert main([str(run), "--output", output, "--metric", "mIoU-X"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: --metric mIoU-X is not in the results of {run}")
    assert "hIoU" in line


def test_points_of_one_speed_and_score_can_be_drawn():
    points = [Point(name, 5.0, 4.0, 6.0, Mean(50.0, float("nan"), 1)) for name in ("$a", "_b")]
    figure = draw(points, "hIoU", "here")
    encode(figure)
    assert [x.get_text() for x in figure.axes[0].texts] == ["$a", "_b"]
