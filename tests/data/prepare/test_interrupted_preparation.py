"""A preparation that is stopped, killed or cannot write: one line, and the next run ends as if."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.conftest import load_script
from zss_d2.data.prepare import convert
from zss_d2.data.synthetic import toy_custom, toy_voc
from zss_d2.utils import writing


def files_of(folder: Path) -> dict[str, bytes | str]:
    """What is prepared: links by where they lead, without what is still to be cleared away."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return {name: content for name, content in found.items() if not name.endswith(".tmp")}


@pytest.fixture
def start(tmp_path) -> Iterator[Callable]:
    """Start a script of datasets/ in a process group of its own; gives it, and its output."""
    output, groups = tmp_path / "output.txt", []

    def call(script: str, *arguments: str) -> tuple[subprocess.Popen, Path]:
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.data.prepare.slowly", script, *arguments],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        groups.append(process.pid)
        return process, output

    yield call
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_the_end_of(group: int) -> None:
    """Wait until no process of the group is left; fails if one stays."""
    end = time.monotonic() + 60
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < end, "a worker process has stayed"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """VOC2012 with 80 and 3 scenes, which no test changes.

    Two workers may have 40 in hand when they are to stop: chunks of 8, and three that wait.
    """
    root = tmp_path_factory.mktemp("originals") / "VOC2012"
    toy_voc.generate(root, 80, 3)
    return root


@pytest.fixture
def voc(originals, tmp_path) -> tuple[Path, list[str]]:
    """Where VOC is to be prepared, and the command line for it."""
    output = tmp_path / "prepared"
    return output, ["--voc-root", str(originals), "--output", str(output)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_preparation_that_is_ended_goes_on_as_if_it_had_not_been(
    voc, prepare_voc, start, name, workers
):
    """The signal reaches all processes, as from a terminal or a scheduler; SIGKILL the first."""
    output, arguments = voc
    signum = signal.Signals[name]
    process, said = start("prepare_voc", *arguments, "--workers", str(workers))
    masks = output / "annotations" / "train"
    wait_until(lambda: masks.is_dir() and any(masks.glob("*.png")), process)
    if name == "SIGKILL":
        process.kill()
    else:
        os.killpg(process.pid, signum)
    process.wait(timeout=120)
    wait_for_the_end_of(process.pid)
    text = said.read_text()
    assert "Traceback" not in text
    assert 0 < len(list(masks.glob("*.png"))) < 80
    if name != "SIGKILL":
        assert process.returncode == 128 + signum
        advice = "run the same command again to go on, finished files are kept"
        lines = [line for line in text.splitlines() if "error" in line]
        assert lines == [f"error: stopped by {name}; {advice}"]
        assert "ready" not in text
    assert prepare_voc.run([*arguments, "--workers", "1"]) == 0
    again = files_of(output)
    shutil.rmtree(output)
    assert prepare_voc.run([*arguments, "--workers", "1"]) == 0
    assert again == files_of(output)


def test_a_generated_world_is_the_same_after_a_kill(start, tmp_path):
    arguments = ["--train", "40", "--dev", "1", "--val", "1", "--output", str(tmp_path / "mini")]
    process, said = start("prepare_mini", *arguments, "--workers", "2")
    masks = tmp_path / "mini" / "annotations"
    wait_until(lambda: any(masks.rglob("*.png")), process)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=120)
    wait_for_the_end_of(process.pid)
    assert "error: stopped by SIGTERM; run the same command again" in said.read_text()
    assert process.returncode == 143
    script = load_script("prepare_mini")
    assert script.run([*arguments, "--workers", "1"]) == 0
    again = files_of(tmp_path / "mini")
    arguments[-1] = str(tmp_path / "undisturbed")
    assert script.run([*arguments, "--workers", "1"]) == 0
    assert again == files_of(tmp_path / "undisturbed")


def die(result: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line(voc, prepare_voc, monkeypatch, capsys):
    output, arguments = voc
    monkeypatch.setattr(convert, "remap", lambda *_: die("for want of memory"))
    assert prepare_voc.run([*arguments, "--workers", "2"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert errors == [
        "error: train: a worker process was killed, often for want of memory; run the same command "
        "again, with fewer --workers"
    ]


def leftover(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.0a1b2c3d.tmp"
    path.write_bytes(b"half")
    os.utime(path, (1e9, 1e9))
    return path


def test_what_a_killed_preparation_was_writing_is_cleared_away(voc, prepare_voc, yard, tmp_path):
    output, arguments = voc
    left = [leftover(output / kind / "train", "x.png") for kind in ("images", "annotations")]
    assert prepare_voc.run([*arguments, "--dry-run"]) == 0
    assert all(path.exists() for path in left)
    assert prepare_voc.run(arguments) == 0
    left += [leftover(yard.parent, "yard.yaml"), leftover(yard.parent / "photos", "yard_0.png")]
    toy_custom.generate(yard.parent)
    left.append(leftover(tmp_path / "toy" / "JPEGImages", "2007_1.jpg"))
    toy_voc.generate(tmp_path / "toy", 1, 1)
    left.append(leftover(tmp_path / "mini" / "images" / "train", "x.png"))
    (tmp_path / "mini" / "world.json").write_text('{"version": 1, "seed": 0}')
    mini = ["--train", "1", "--dev", "1", "--val", "1", "--output", str(tmp_path / "mini")]
    load_script("prepare_mini").run(mini)
    assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize("young", [".train.txt.4711.tmp", ".photos.0a1b2c3d.tmp", "._yard.yaml"])
def test_what_a_killed_generator_left_a_moment_ago_does_not_forbid_the_next(yard, tmp_path, young):
    (yard.parent / young).write_bytes(b"half")
    toy_custom.generate(yard.parent)
    photos = tmp_path / "toy" / "JPEGImages"
    photos.mkdir(parents=True)
    (photos / young).write_bytes(b"half")
    toy_voc.generate(tmp_path / "toy", 1, 1)


# The folder to write to.


def one_error(capsys) -> str:
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("taken", ["", "images", "annotations/train"])
def test_a_file_where_the_output_is_to_be_is_one_line(voc, prepare_voc, capsys, taken, workers):
    output, arguments = voc
    path = output / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    assert prepare_voc.run([*arguments, "--workers", workers]) == 2
    assert f"{path} is a file where a folder is needed; name another folder" in one_error(capsys)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "cannot be written, the disk is full ("),
        (errno.EROFS, "cannot be written, the file system is read-only"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_and_what_is_prepared_stays(
    voc, prepare_voc, capsys, monkeypatch, number, expected, workers
):
    output, arguments = voc
    assert prepare_voc.run([*arguments, "--copy", "--workers", "1"]) == 0
    before = files_of(output)
    (output / "annotations/train/toy_train_aug_0007.png").unlink()
    (output / "images/val/toy_val_0001.jpg").unlink()

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source))

    monkeypatch.setattr(writing.os, "replace", refuse)
    capsys.readouterr()
    assert prepare_voc.run([*arguments, "--copy", "--workers", workers]) == 2
    line = one_error(capsys)
    assert f"{output}/annotations/train/toy_train_aug_0007.png: {expected}" in line
    after = files_of(output)
    assert {name: before[name] for name in after} == after
    assert len(after) == len(before) - 2
    monkeypatch.undo()
    assert prepare_voc.run([*arguments, "--copy", "--workers", workers]) == 0
    assert files_of(output) == before


def test_generators_that_cannot_write_say_so_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    target = str(tmp_path / "file" / "world")
    mini = load_script("prepare_mini")
    for run in (mini.run, toy_voc.main, toy_custom.main):
        assert run(["--output", target] if run is mini.run else [target]) == 2
        assert f"{tmp_path / 'file'} is a file where a folder is needed" in one_error(capsys)


def test_checking_a_tree_that_is_a_file_is_one_line_a_split(voc, prepare_voc, capsys):
    output, arguments = voc
    output.write_text("precious")
    assert prepare_voc.run([*arguments, "--check"]) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 2
    assert all("no such folder; run `python datasets/prepare_voc.py`" in line for line in errors)


@pytest.mark.parametrize("script", ["prepare_voc", "prepare_coco_stuff", "prepare_context"])
@pytest.mark.parametrize("value", ["0", "-4", "two", "1.5"])
def test_a_number_of_workers_that_cannot_be_is_one_line(script, value, capsys):
    assert load_script(script).run([f"--workers={value}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: argument --workers: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--train=-1", "--seed=-1", "--workers=0"])
def test_numbers_that_generators_cannot_use_are_one_line(option, tmp_path, capsys):
    runs = [load_script("prepare_mini").run]
    if "workers" not in option:
        runs.append(lambda arguments: toy_voc.main([str(tmp_path / "toy"), *arguments]))
    for run in runs:
        assert run([option]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: argument {option.split('=')[0]}: ")
        assert len(err.splitlines()) == 1
