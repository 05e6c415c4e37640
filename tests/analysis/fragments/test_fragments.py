"""The command that measures the shape of regions of finished runs, also of earlier ones."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from zss_d2.analysis.commands.fragments import main
from zss_d2.analysis.fragments.measure import Measured
from zss_d2.analysis.fragments.session import paired_differences, table
from zss_d2.analysis.over_runs.statistics import Mean
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer
from zss_d2.evaluation.counts import counts_file, read_counts, write_counts
from zss_d2.evaluation.shape.metrics import METRICS, is_measured

DATASET = "zss_voc_val"


@pytest.fixture
def run(toy_voc, make_cfg, tmp_path) -> Path:
    """A run that was measured when it was evaluated, with its predictions and weights."""
    folder = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(folder), "TEST.PREDICTIONS", "png")
    model = ZeroShotTrainer.build_model(cfg).eval()
    ZeroShotTrainer.test(cfg, model)
    ZeroShotCheckpointer(model, str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def forget(run: Path) -> dict:
    """Make the run one of an earlier version; returns its results."""
    content = results(run)
    content[DATASET] = {
        key: value
        for key, value in content[DATASET].items()
        if key.removesuffix("-S").removesuffix("-U") not in METRICS
    }
    (run / "results.json").write_text(json.dumps(content))
    path = counts_file(run, DATASET)
    write_counts(path, replace(read_counts(path), shapes=None))
    return content


def call(run: Path, capsys, *more: str) -> tuple[dict, str]:
    """What fragments.json says of the run, and the notes."""
    output = run.parent / "output"
    assert main([str(run), "--output", str(output), *more]) == 0
    (content,) = json.loads((output / "fragments.json").read_text())[DATASET]["runs"].values()
    return content, capsys.readouterr().err


def test_an_evaluation_has_measured_and_earlier_runs_are_measured_now(run, capsys):
    measured = results(run)
    assert is_measured(measured[DATASET])
    content, notes = call(run, capsys)
    assert (content["from"], notes) == ("its evaluation", "")
    assert content["metrics"].items() <= measured[DATASET].items()
    shape = content["metrics"], content["classes"]

    assert not is_measured(forget(run)[DATASET])
    content, notes = call(run, capsys)
    assert content["from"] == "its stored predictions"
    assert (content["metrics"], content["classes"]) == shape
    assert f"note: added to {run / 'results.json'}" in notes
    assert results(run) == measured
    assert call(run, capsys)[0]["from"] == "its evaluation"

    forget(run)
    shutil.rmtree(run / "predictions")
    content, _ = call(run, capsys)
    assert content["from"] == "its last checkpoint"
    assert (content["metrics"], content["classes"]) == shape
    assert results(run) == measured


def test_other_labels_than_those_of_the_results_are_not_added(run, capsys):
    earlier = forget(run)
    path = counts_file(run, DATASET)
    counts = read_counts(path)
    counts.confusion[0, 0] -= 7
    counts.confusion[1, 0] += 7
    write_counts(path, counts)
    content, notes = call(run, capsys)
    assert content["from"] == "its stored predictions"
    assert f"note: {run}: 7 pixels of {DATASET} are labelled otherwise" in notes
    assert results(run) == earlier
    assert read_counts(path).shapes is None


def test_means_and_pairs_by_hand():
    def measured(value: float) -> Measured:
        return Measured("", {"pieces": value, "pieces-U": math.nan}, {})

    found = {i: measured(x) for i, x in enumerate((3.0, 5.0, 2.0, 6.0, 9.0))}
    configs = [
        {"SEED": seed, "A": {"B": b}} for seed, b in ((0, 1), (1, 1), (1, 1), (0, 1), (7, 1))
    ]
    groups = {"first": [0, 1], "second": [2, 3], "third": [4]}
    pairs = paired_differences(found, groups, configs, ["A.B"])
    assert list(pairs) == ["second"]
    mean = pairs["second"]["pieces"]  # 2 - 5 and 6 - 3
    assert (mean.value, mean.runs) == (0, 2)
    assert mean.half == pytest.approx(
        12.706 * 3, rel=1e-4
    )  # t(0.975, 1) s / sqrt(2), s = 3 sqrt(2)
    assert pairs["second"]["pieces-U"].runs == 0
    configs[2]["A"]["B"] = 2
    assert paired_differences(found, groups, configs, ["A.B"])["second"]["pieces"].value == 3


def test_groups_of_classes_that_are_not_there_have_no_line():
    none, some = Mean(math.nan, math.nan, 0), Mean(1.25, 0.5, 3)
    means = {f"{key}{x}": none if x == "-S" else some for key in METRICS for x in ("", "-S", "-U")}
    lines = table({"a|b": means}, sign="+").splitlines()[2:]
    assert [[x.strip() for x in line.split("|")[-9:-6]] for line in lines] == [
        ["all", "+1.25 ± 0.50", "+1.25 ± 0.50"],
        ["unseen", "+1.25 ± 0.50", "+1.25 ± 0.50"],
    ]
