"""The console command ``zss`` and the start of ``train_net.py``: quick, and one line on Ctrl-C."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import zss_d2
from tests.conftest import ROOT, loads_torch
from zss_d2 import cli, errors

ZSS = (sys.executable, "-m", "zss_d2")
HEAVY = ("torch", "detectron2", "open_clip", "matplotlib", "cv2", "scipy")
REPORTING = f"""
import atexit, sys
atexit.register(lambda: sys.stderr.write(" ".join(sorted({{*sys.modules}} & {{*{HEAVY}}}))))
from zss_d2.cli import main
sys.exit(main())
"""


# Those of `train` are Detectron2's, and say so there.
LIGHT = [name for name in cli.COMMANDS if name != "train"]


@pytest.mark.parametrize("arguments", [[], *([name] for name in LIGHT)], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    process = subprocess.run(
        [sys.executable, "-c", REPORTING, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0
    assert process.stdout.startswith(f"usage: {' '.join(['zss', *arguments])} ")
    assert process.stderr == ""


def test_help_names_every_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, what) in cli.COMMANDS.items():
        assert [line.split(maxsplit=1) for line in lines if line.startswith(f"  {name} ")] == [
            [name, what]
        ]


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"zss_d2 {zss_d2.__version__}\n"


def test_what_is_no_command_is_one_line_with_the_nearest(capsys):
    assert cli.main(["reprot", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 'reprot' is no command of zss (did you mean 'report'?); use ")
    assert error.count("\n") == 1
    assert cli.main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_letters_that_the_output_lacks_are_escaped(monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert errors.command(lambda: print("Übergröße \udcff") or 0)() == 0
        assert output.buffer.getvalue() == rb"\xdcbergr\xf6\xdfe \udcff" + b"\n"


def test_the_status_is_that_of_the_command(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert cli.main(["toy-voc", str(tmp_path / "toy")]) == 0
    assert list((tmp_path / "toy").iterdir())


def test_prepare_names_the_data_sets_and_hands_over(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert cli.main(["prepare", "vok"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: argument NAME: invalid choice: 'vok' (choose from ")
    assert "coco_stuff" in error
    with pytest.raises(SystemExit) as ended:
        cli.main(["prepare", "voc", "--help"])
    assert ended.value.code == 0
    assert "usage: zss prepare voc " in capsys.readouterr().out
    assert cli.main(["prepare", "voc", "--check", "--workers", "1"]) == 2


@pytest.mark.parametrize("name", ["ldvc_mini", "configs/ldvc_mini.yaml", "ldvc_mini.yaml"])
def test_train_takes_the_name_of_a_config_anywhere(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", name, "OUTPUT_DIR", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert "prepare_mini.py" in capsys.readouterr().err
    # A file that is here goes first.
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("NO_KEY: 1")
    with pytest.raises(SystemExit):
        cli.main(["train", name, "OUTPUT_DIR", str(tmp_path / "run")])
    assert f"error: {name}: there is no key NO_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ldvc_minni", "../configs/ldvc_mini.yaml", "ldvc_mini.yml"])
def test_what_is_no_config_is_told(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["train", name])
    assert f"config file {name} does not exist" in capsys.readouterr().err


def interrupted(command: list[str]) -> tuple[int, str]:
    """Status and error output of a command that gets Ctrl-C as soon as it loads torch."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not loads_torch(process.pid):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.skipif(sys.platform != "linux", reason="reads what a process has loaded from /proc")
@pytest.mark.parametrize(
    "command",
    [
        (*ZSS, "panel", "no_run"),
        (*ZSS, "report", "no_run"),
        (*ZSS, "train", "configs/no.yaml"),
        (sys.executable, "train_net.py", "--config-file", "configs/no.yaml"),
    ],
    ids=["panel", "report", "train", "train_net"],
)
def test_ctrl_c_while_modules_are_loaded_is_one_line(command):
    status, errors = interrupted([*command])
    # CPython may end itself by the signal, which shells show as 130 too.
    assert status in (130, -signal.SIGINT)
    assert errors == "interrupted\n"
