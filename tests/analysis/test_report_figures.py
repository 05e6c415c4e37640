"""Figures of runs and classes that are called anything."""

import numpy as np
import pytest

from zss_d2.analysis.report import figures
from zss_d2.analysis.report.document import Cell, Heading, Table, to_html
from zss_d2.drawing.figures import encode

NAMES = ["$x^2$", r"$\frac$", "_a", "100 %", "a|b"]


def shown(texts) -> list[str]:
    return [text.get_text() for text in texts]


def test_bars_name_every_class_and_run():
    runs = ["_first", "$second$"]
    values = {run: np.arange(5.0) for run in runs}
    figure = figures.class_bars(values, NAMES, [4], figures.run_colours(runs))
    encode(figure, dpi=40)
    ticks = shown(figure.axes[0].get_yticklabels())
    assert ticks == ["a|b (unseen)", "100 %", "_a", r"$\frac$", "$x^2$"]
    assert shown(figure.legends[0].get_texts()) == runs


def test_a_heat_map_names_every_class():
    figure = figures.confusion_map(np.eye(5), NAMES, [4], r"$\frac$/_a")
    encode(figure, dpi=40)
    axis = figure.axes[0]
    assert shown(axis.get_xticklabels()) == shown(axis.get_yticklabels()) == NAMES
    assert axis.get_title() == r"$\frac$/_a"


def test_curves_name_every_run_and_keep_the_exponents_of_their_axis():
    runs = ["_first", r"$\frac$"]
    curves = {run: ([1, 2], [0.01, 1000.0]) for run in runs}
    panels = {r"zss_$\frac$_val hIoU": curves}
    figure = figures.training_curves(curves, panels, figures.run_colours(runs))
    encode(figure, dpi=40)
    assert shown(figure.axes[0].get_legend().get_texts()) == runs
    assert figure.axes[1].get_title() == r"zss_$\frac$_val hIoU (%)"
    assert figure.axes[0].get_yticklabels()[0].get_parse_math()


@pytest.mark.parametrize("number", [2, 7, 12])
def test_no_colour_stands_for_two_runs(number):
    runs = [f"run{index}" for index in range(number)]
    assert len(set(figures.run_colours(runs).values())) == number


def test_a_lone_point_is_seen_and_iterations_are_whole_numbers():
    curve = ([20.0, 24.0], [3.0, 2.0])
    figure = figures.training_curves(
        {"a": ([20.0], [3.0]), "b": curve}, {}, {"a": "red", "b": "blue"}
    )
    (axis,) = figure.axes
    assert [line.get_marker() for line in axis.lines] == [".", ""]
    figure.draw_without_rendering()
    assert all(tick == round(tick) for tick in axis.get_xticks())


def test_names_of_runs_are_broken_behind_the_separators_of_their_parts():
    html = to_html([Heading("t"), Table(["run"], [[Cell("my_run/<b>-2 x_")]])])
    assert "<td>my_<wbr>run/&lt;b&gt;-<wbr>2 x_</td>" in html
