"""benchmarks/gpu.py on a CPU, at sizes at which all of it takes seconds: that it has not rotted."""

from __future__ import annotations

import importlib
import json
import logging
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = logging.root.manager.disable
    yield importlib.import_module("gpu")
    logging.disable(before)


@pytest.fixture
def run(gpu):
    late = time.monotonic() + 1000
    return gpu.Run("cpu", False, late, batch=16, size=64, tower="zss-tiny", least_s=0.0)


def test_every_row_is_measured(gpu, tmp_path):
    file = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--tiny", "--json", str(file), "--minutes", "30"])
    result = json.loads(file.read_text())
    assert not [note for note in result["notes"] if "FAILED" in note or "left out" in note]
    found = {(c["measure"], c["model"], c["precision"], c["batch"]) for c in result["cells"]}
    for precision in ("fp32", "bf16"):
        for name, model in gpu.MODELS.items():
            wanted = {("one image", 1), ("images in a call", 2)}
            wanted |= {("training step", 2)} if model.trained else set()
            assert {(measure, name, precision, batch) for measure, batch in wanted} <= found
    assert all(c["ms"] > 0 for c in result["cells"])
    assert all(c["ratio"] > 0 for c in result["cells"] if c["measure"] != "tower")
    checks = {check["check"]: check for check in result["checks"]}
    assert {f"{name} on CPU and cpu" for name in gpu.AGREEING} <= checks.keys()
    assert {"loader", "precision bf16", "precision fp32", "AMP"} <= checks.keys()
    assert {"predict with ldvc_voc, bf16", "whole run of ldvc_voc, bf16"} <= checks.keys()
    assert [name for name, check in checks.items() if check["ok"] is False] == []


def test_a_row_that_fails_is_said_and_the_next_one_is_measured(run, capsys):
    def fail():
        raise RuntimeError("no kernel\nfor this")

    run.attempt("first", fail)
    run.attempt("second", lambda: run.record("one image", "ldvc_voc", "fp32", 1, ms=2.0))
    assert run.notes == ["first: FAILED, RuntimeError: no kernel"]
    assert run.notes[0] in capsys.readouterr().out
    assert [cell["model"] for cell in run.cells] == ["ldvc_voc"]


def test_when_time_is_up_the_rest_is_left_out(run):
    run.deadline = time.monotonic() - 1
    run.attempt("row", lambda: pytest.fail("it was measured"))
    assert run.notes == ["row: left out, the time is up (--minutes)"]


def test_short_memory_halves_the_batch(gpu, run):
    batches = []

    def call(batch):
        batches.append(batch)
        if batch > 4:
            raise torch.cuda.OutOfMemoryError("too much")

    gpu.with_smaller_batches(run, "row", 16, call)
    assert batches == [16, 8, 4]
    assert run.notes[-1] == "row: out of memory, so with a batch of 4"


def test_a_batch_of_one_that_is_too_much_fails(gpu, run):
    def call(batch):
        raise torch.cuda.OutOfMemoryError("too much")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        gpu.with_smaller_batches(run, "row", 2, call)


def test_ratios_are_to_the_tower_of_the_same_batch_and_precision(run):
    run.record("tower", "zss-tiny", "bf16", 16, ms=10.0)
    run.record("tower", "zss-tiny", "fp32", 16, ms=40.0)
    run.record("training step", "ldvc_voc", "bf16", 16, ms=29.0, gib=2.0)
    run.record("training step", "ldvc_voc", "bf16", 8, ms=29.0)
    assert run.cells[2]["ratio"] == pytest.approx(2.9)
    assert "ratio" not in run.cells[3]


def test_goals_by_hand(run):
    run.record("tower", "zss-tiny", "bf16", 16, ms=10.0)
    run.record("training step", "ldvc_coco", "bf16", 16, ms=50.1, gib=10.8)
    run.record("images in a call", "ldvc_voc", "bf16", 16, ms=15.0)
    run.record("images in a call, graphs", "ldvc_voc", "bf16", 16, ms=14.0)
    run.record("images in a call", "MSCAN-T", "bf16", 16, ms=2.0)
    run.record("images in a call, graphs", "MSCAN-T", "bf16", 16, ms=2.1)
    run.record("images in a call", "ldvc_voc", "fp32", 16, ms=1.0)
    goals = [[(g["goal"], g["ok"]) for g in cell["goals"]] for cell in run.cells]
    assert goals == [
        [],
        [("ratio <= 5.0", False), ("GiB <= 10.8", True)],
        [("ratio <= 1.5", True)],
        [("ratio <= 1.5", True)],
        [("7.5 of 7.0 times LDVC's speed", True)],
        [("6.7 of 7.0 times LDVC's speed", False)],
        [],
    ]


def test_the_table_by_hand(gpu, run):
    run.record("tower", "zss-tiny", "bf16", 16, ms=10.0)
    run.record("tower", "zss-tiny", "bf16", 8, ms=5.0)
    run.record("training step", "ldvc_voc", "bf16", 16, ms=31.0, gib=2.04)
    run.record("one image", "MSCAN-T", "fp32", 1, ms=1234.0, launches=7)
    run.record("images in a call", "MSCAN-T", "bf16", 8, ms=9.0)
    lines = gpu.table(run.cells, ["tower", "ldvc_voc", "MSCAN-T"], 16, 512).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["batch 16, 512 px", "tower", "ldvc_voc", "MSCAN-T"]
    assert rows[2:] == [
        ["tower x16, bf16, ms", "10", "", ""],
        ["training step, bf16, ms", "", "31 (3.1); ratio <= 3.0: SHORT", ""],
        ["training step, bf16, GiB", "", "2.0", ""],
        ["one image, fp32, ms", "", "", "1.23e+03"],
        ["one image, fp32, launches", "", "", "7"],
        ["images in a call, bf16, ms", "", "", "9 (1.8) [batch 8]"],
    ]


def test_launches_on_a_cpu_are_operators(gpu):
    x = torch.ones(2)
    assert gpu.gpu_checks.launches(lambda: x + x, "cpu") == 1
    assert gpu.gpu_checks.launches(lambda: (x + x) * x, "cpu") == 2


def test_types_of_layers(gpu):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    seen = gpu.gpu_checks.layer_types(model, lambda: model(torch.ones(1, 2)))
    assert seen == {torch.float32: 2}
    assert not model[0]._forward_hooks
