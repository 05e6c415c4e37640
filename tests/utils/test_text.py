"""Names that hold anything, on one line, in Markdown and where room is short."""

import html
import re

import pytest

from zss_d2.utils.text import markdown_text, one_line, shorten, wrapped

# What CommonMark makes of escapes.
UNESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def test_line_breaks_and_control_codes_do_not_survive():
    assert one_line(" two\r\n lines\t") == "two lines"
    assert one_line("bell\x07 \ud800") == "bell\\x07 \\ud800"
    assert one_line("猫 café 🐱") == "猫 café 🐱"


@pytest.mark.parametrize(
    "name", ["$x^2$", "a|b", "`tick`", "<b>", "*a*", "_a_", "~~a~~", "[a](b)", "\\|", "&lt;", "a_b"]
)
def test_markdown_shows_what_is_written(name):
    escaped = markdown_text(name)
    assert not re.search(r"(?<!\\)(\\\\)*[|<`*$\[~]", escaped)
    assert html.unescape(UNESCAPE.sub(lambda x: html.escape(x[1]), escaped)) == name


def test_words_stay_as_they_are():
    for text in ("zss_voc_val", "TEST.PER_IMAGE True", "95 % of 1000 -> +0.3", "R & D"):
        assert markdown_text(text) == text
    assert markdown_text("_a and b_") == "\\_a and b\\_"


def test_the_middle_is_left_out_where_room_is_short():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 7) == "abc…ijk"
    assert shorten("猫" * 10, 8) == "猫猫…猫"  # as wide as two letters each


def test_paths_are_broken_behind_their_separators():
    assert wrapped("output/sweep/ldvc/seed0", 13) == "output/sweep/\nldvc/seed0"
    assert wrapped("abcdefgh", 3) == "abc\ndef\ngh"
    assert wrapped("one two", 20) == "one two"
    lines = wrapped("word " * 30, 10, lines=2).split("\n")
    assert max(map(len, lines)) <= 10
    assert len(lines) <= 3
