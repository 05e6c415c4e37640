"""Command lines: one line for every mistake, a signal or a reader that has gone."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from zss_d2.errors import ZssError, command, user_message
from zss_d2.utils.command_line import MAX_SEED, Parser, between, check_output, whole


def end_with(error: BaseException) -> int:
    @command
    def main() -> int:
        raise error

    return main()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ZssError("a line\n  of two"), 2, "error: a line of two\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "error: /a/b: Permission denied\n"),
        (OSError("without a file"), 2, "error: without a file\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_how_a_command_ends(error, status, line, capsys):
    assert end_with(error) == status
    assert capsys.readouterr().err == line


def test_a_fault_of_our_own_stays_one():
    with pytest.raises(ZeroDivisionError):
        end_with(ZeroDivisionError())


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(lines):
    program = (
        "import sys; from zss_d2.errors import command\n"
        f"main = command(lambda: [print('line') for _ in range({lines})] and 0)\n"
        "sys.stdin.read(); sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_the_text_of_a_worker_is_its_last_line():
    text = "Traceback\n  File x\nzss_d2.errors.ZssError: the mask is wrong"
    assert user_message(RuntimeError(text)) == "the mask is wrong"


def parser() -> Parser:
    result = Parser("What it does.\n\n    a command")
    result.add_argument("--number", type=whole(1, MAX_SEED))
    result.add_argument("--share", type=between(-1, 1))
    result.add_opts()
    return result


def test_what_is_right_is_read():
    args = parser().parse_args(["--number", "3", "--share", "-0.5", "--opts", "A.B", "-1"])
    assert (args.number, args.share, args.opts) == (3, -0.5, ["A.B", "-1"])
    assert parser().parse_args([]).opts == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number", "0"], "argument --number: 0 is too small; give 1 or more; --help"),
        (["--number", "4294967296"], "4294967296 is too large; give 4294967295 or less"),
        (["--number", "1.5"], "'1.5' is no whole number"),
        (["--share", "nan"], "argument --share: 'nan' is no number from -1 to 1"),
        (["--share", "1.01"], "'1.01' is no number from -1 to 1"),
        (["--other"], "unrecognized arguments: --other; --help lists all options"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message):
    with pytest.raises(ZssError) as caught:
        parser().parse_args(arguments)
    assert message in str(caught.value)


def test_the_description_is_shown_as_it_stands(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert "What it does.\n\n    a command" in capsys.readouterr().out
    assert isinstance(parser(), argparse.ArgumentParser)


def test_outputs_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "file", tmp_path / "new/deep/file", Path("file"), Path("new/file")):
        check_output(path)
    for path in (tmp_path, tmp_path / "new", Path()):
        check_output(path, folder=True)


def test_outputs_that_cannot(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, folder, message in (
        (tmp_path / "file", True, "file is a file; give a folder"),
        (tmp_path, False, "is a folder; give a file"),
        (tmp_path / "file/below/x", False, "file is no folder; give another --output"),
        (tmp_path / "link/x", True, "link is no folder"),
    ):
        with pytest.raises(ZssError, match=message):
            check_output(path, folder)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ZssError, match=r"--figure .*x: .* cannot be written to; give another"):
        check_output(tmp_path / "x", option="--figure")
