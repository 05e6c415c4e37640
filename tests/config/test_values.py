"""What is written for a key becomes a value of its type, or says what would do."""

from __future__ import annotations

import json

import pytest

from zss_d2.config.checks import in_words, meets
from zss_d2.config.values import converted, listed, shown


@pytest.mark.parametrize(
    ("written", "default", "expected"),
    [
        ("7", 1, 7),
        ("7.0", 1, 7),
        ("1e4", 1, 10000),
        (7, 1.0, 7.0),
        ("-0.5", 1.0, -0.5),
        ("TRUE", False, True),
        (False, True, False),
        ("None", "", "None"),
        ("12", "a", "12"),
        ('"12"', "a", "12"),
        ("a, b", "x", "a, b"),
        ("a", (), ("a",)),
        ('["a", "b"]', (), ("a", "b")),
        ((1, 2), [], [1, 2]),
        ("3", [1], [3]),
        ("3", None, 3),
    ],
)
def test_values_take_the_type_of_their_key(written, default, expected):
    value = converted(written, default)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("written", "default", "wanted"),
    [
        ("7.5", 1, "a whole number"),
        ("inf", 1, "a whole number"),
        (float("inf"), 1, "a whole number"),
        (10**400, 1.0, "a number"),
        (True, 1, "a whole number"),
        ("True", 1.0, "a number"),
        (None, 1.0, "a number"),
        (1, True, "True or False"),
        ("yes", True, "True or False"),
        (None, "a", "text, '' for none"),
        (12, "a", "text, in quotes"),
        (True, "a", "text, in quotes"),
        ({"a": 1}, (), 'a list, such as \'("a", "b")\''),
        ("[1, 2", [3, 4], "a list, such as [3, 4]"),
        (None, [], "a list, such as"),
    ],
)
def test_what_cannot_be_a_value_says_what_could(written, default, wanted):
    with pytest.raises(ValueError, match="^.*$") as caught:
        converted(written, default)
    assert str(caught.value).startswith(wanted)


def test_a_choice_may_be_written_as_a_truth_value():
    choices = ("auto", "true", "false")
    assert [converted(w, "auto", choices) for w in (True, "False", "auto")] == [
        "true",
        "false",
        "auto",
    ]


def test_long_values_are_cut_in_the_middle():
    assert shown([1, 2]) == "[1, 2]"
    text = shown("a" * 400 + "\n" + "b" * 400)
    assert len(text) <= 80
    assert text.startswith("'aaa")
    assert text.endswith("bbb'")
    assert json.dumps(text) == f'"{text}"'  # on one line


def test_many_names_are_counted():
    assert listed("abc") == "a, b, c"
    assert listed("abcde", most=2) == "a, b and 3 more"


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ("[0, 0]", "0"),
        ("[1, inf)", "1 or more"),
        ("(0, inf)", "more than 0"),
        ("[0, 1]", "0 to 1"),
        ("[0, 1)", "0 to less than 1"),
        ("(0, 255]", "more than 0, up to 255"),
        ("(-inf, inf)", "any number"),
        ("(-inf, 9]", "9 or less"),
        ("(-inf, 9)", "less than 9"),
    ],
)
def test_intervals_in_words(interval, words):
    assert in_words(interval) == words


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (3, "[1, inf)", True),
        ("a", ["a", "b"], True),
        ("c", ["a", "b"], False),
        (["c", "a"], ["a", "b"], True),
        ([], ["a"], False),
        ([], [[]], True),
        ([1.0], [[]], False),
        ("cuda:1", {"regex": "cuda.*"}, True),
        ("cpu", {"regex": "cuda.*"}, False),
    ],
)
def test_what_another_key_must_be(value, wanted, expected):
    assert meets(value, wanted) is expected
