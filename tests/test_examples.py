"""The examples run as they stand, and print what examples/README.md says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "examples/README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
# How far numbers, percent, may be from those of the page: a training on another CPU ends elsewhere.
SCRIPTS = {"own_words": 2.0, "own_data": 15.0, "compare_methods": 2.0}


def printed(script: str) -> list[str]:
    """Lines of the page's block behind the command that runs the script."""
    return re.search(rf"{script}\.py\n.*?```text\n(.*?)\n```", PAGE, re.S)[1].splitlines()


def words_and_numbers(line: str) -> tuple[str, list[float]]:
    return " ".join(NUMBER.sub("#", line).split()), [float(x) for x in NUMBER.findall(line)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_prints_what_the_page_says(script, tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, ROOT / f"examples/{script}.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = [words_and_numbers(line) for line in printed(script)]
    wanted = {words for words, _ in expected}
    found = [words_and_numbers(line) for line in done.stdout.splitlines()]
    found = [line for line in found if line[0] in wanted]
    assert [words for words, _ in found] == [words for words, _ in expected]
    for (words, numbers), (_, of_page) in zip(found, expected, strict=True):
        assert numbers == pytest.approx(of_page, abs=SCRIPTS[script]), words
    for line in done.stdout.splitlines():
        if line.startswith("written: "):
            assert (tmp_path / line.removeprefix("written: ")).is_file()


def test_the_page_has_every_script():
    assert {f"{name}.py" for name in SCRIPTS} == {x.name for x in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"\]\((\w+\.py)\)", PAGE)) == {f"{name}.py" for name in SCRIPTS}
