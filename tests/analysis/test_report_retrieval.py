"""Curves of GLM's retrieval in the report, and how they go with unseen classes."""

from types import SimpleNamespace

import pytest

from zss_d2.analysis.report import content
from zss_d2.analysis.report.figures import training_curves


def run(name: str, retrieved: float | None, unseen: float | None) -> SimpleNamespace:
    history = [{"iteration": 19, "total_loss": 9.0}, {"iteration": 39, "total_loss": 5.0}]
    if retrieved is not None:
        history[0]["glm_retrieval"], history[1]["glm_retrieval"] = 10.0, retrieved
    return SimpleNamespace(name=name, history=history, metrics={"val": {"mIoU-U": unseen}})


@pytest.fixture
def panels(monkeypatch) -> dict:
    """What is drawn."""
    seen: dict = {}

    def keep(losses, metrics, colours):
        seen.update(metrics)
        return training_curves(losses, metrics, colours)

    monkeypatch.setattr(content, "training_curves", keep)
    return seen


def words(runs: list) -> list[str]:
    return [x.text for x in content.training_section(runs) if isinstance(x, content.Paragraph)]


def test_three_runs_have_a_curve_each_and_a_correlation(panels):
    runs = [run("a", 90.0, 40.0), run("b", 95.0, 70.0), run("c", 80.0, 30.0), run("ce", None, 5.0)]
    (sentence,) = words(runs)
    assert sentence == (
        "CLS retrieved among the batch, at the end, and mIoU-U over 3 runs: Pearson +0.89, "
        "Spearman +1.00."
    )
    assert list(panels) == ["CLS retrieved among the batch"]
    curves = panels["CLS retrieved among the batch"]
    assert curves == {n: ((19, 39), (10.0, x)) for n, x in (("a", 90), ("b", 95), ("c", 80))}


def test_two_runs_or_one_without_unseen_classes_have_none(panels):
    assert words([run("a", 90.0, 40.0), run("b", 95.0, 70.0)]) == []
    assert words([run("a", 90.0, 40.0), run("b", 95.0, 70.0), run("c", 99.0, None)]) == []


def test_other_methods_have_no_panel_of_it(panels):
    assert words([run("a", None, 40.0)]) == []
    assert not panels
