"""Text in figures is what was written, whatever Matplotlib would make of it."""

import logging
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Patch

from zss_d2.drawing import lettering
from zss_d2.drawing.figures import encode

# A code point that means nothing, so no font has it.
UNKNOWN = "\U000e0fff"


@pytest.fixture
def computer_modern(monkeypatch):
    """A font without Cyrillic letters as the preferred one, whatever the list of fonts has.

    Matplotlib brings it, but keeps its list between processes, and one that lacks it goes on.
    """
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    for name in ("cmr10", "DejaVuSans", "DejaVuSans-Bold"):
        fontManager.addfont(Path(mpl.get_data_path(), "fonts", "ttf", f"{name}.ttf"))
    with mpl.rc_context({"font.family": ["cmr10"]}):
        lettering._families.cache_clear()
        yield
    lettering._families.cache_clear()


def test_names_stay_names():
    names = ["$x^2$", r"$\frac$", "_a", "100 %", "a|b", "\\$"]
    assert lettering.class_labels(names) == names
    assert lettering.class_labels(["two\nlines", " "]) == ["two lines", "class 1"]


def test_names_without_a_font_become_numbers_and_that_is_said(caplog):
    lettering._tell_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert lettering.class_labels(["cat", UNKNOWN]) == ["cat", "class 1"]
    assert "no installed font" in caplog.text
    assert "class 1: " in caplog.text
    assert lettering.drawn_title(f"run/{UNKNOWN}") == "run/\\U000e0fff"


def test_no_two_classes_share_a_label():
    long = [f"{'very ' * 20}{end}{'long ' * 20}" for end in ("a", "b")]
    labels = lettering.class_labels([*long, "class 3", UNKNOWN, "a b", "a\nb"])
    assert len(set(labels)) == 6
    assert max(map(len, labels)) <= lettering.LABEL_WIDTH


def test_another_font_helps_out(computer_modern):
    families = lettering.style(["жук"])["fontfamily"]
    assert families[0] == "cmr10"
    assert families[1].startswith("DejaVu")
    assert lettering.class_labels(["жук"]) == ["жук"]
    assert lettering.style(["cat"])["fontfamily"] == ["cmr10"]


def test_characters_of_bitmap_fonts_do_not_count(monkeypatch):
    class Bitmap:
        scalable = False

        def __init__(self, path):
            pass

    monkeypatch.setattr(lettering, "FT2Font", Bitmap)
    assert lettering._covered("DejaVu Sans", frozenset("a")) == frozenset()


@pytest.mark.parametrize("name", ["$x^2$", r"$\frac$", "_a", "_nolegend_", "%", "a\\$b"])
def test_every_kind_of_text_is_drawn_as_written(name):
    figure = Figure()
    axis = figure.subplots()
    looks = lettering.style([name])
    texts = [axis.set_title(name, **looks), axis.set_ylabel(name, **looks)]
    axis.set_xticks([0], [name], **looks)
    texts += axis.get_xticklabels()
    texts += lettering.legend(figure, [Patch(color="red")], [name]).get_texts()
    texts += lettering.legend(axis, [Patch(color="red")], [name]).get_texts()
    assert len(encode(figure, dpi=40)) > 100
    assert [text.get_text() for text in texts] == 5 * [name]
    # What a formula would make of it is as wide as what it shows.
    plain = figure.text(0, 0, "x" * len(name), parse_math=False, fontfamily="monospace")
    drawn = figure.text(0, 0, name, **looks | {"fontfamily": "monospace"})
    widths = [text.get_window_extent().width for text in (plain, drawn)]
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.15)


def test_text_is_cut_where_another_font_goes_on(computer_modern):
    runs = lettering.font_runs("a жук b")
    assert [piece for _, _, piece in runs] == ["a ", "жук", " b"]
    assert [Path(file).stem.startswith("cmr10") for file, _, _ in runs] == [True, False, True]
    assert "".join(piece for _, _, piece in lettering.font_runs(f"x{UNKNOWN}")) == f"x{UNKNOWN}"
