"""Files are written in one step whatever happens; what killed writers leave is cleared away."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zss_d2.errors import ZssError
from zss_d2.utils import writing

HOUR = 3600


def fill(text: str):
    return lambda path: path.write_text(text)


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_gets_the_permissions_that_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        writing.write_atomic(tmp_path / "file", fill("x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_two_writers_with_one_process_id_do_not_share_a_temporary_file(tmp_path):
    """Containers that share a folder have equal process ids."""
    path, seen = tmp_path / "file", []

    def outer(temporary: Path) -> None:
        seen.append(temporary)
        writing.write_atomic(path, lambda other: (seen.append(other), other.write_text("inner")))
        temporary.write_text("outer")

    writing.write_atomic(path, outer)
    assert seen[0] != seen[1]
    assert path.read_text() == "outer"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "a.png"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    writing.write_atomic(tmp_path / name, fill("x"))
    assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(143)])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        writing.write_atomic(path, write)
    assert names(tmp_path) == ["file"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full ("),
        (errno.EDQUOT, "your quota of the disk is used up; make room"),
        (errno.EROFS, "the file system is read-only; name another folder"),
        (errno.EACCES, "you have no permission; name another folder"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_forbids_writing_is_one_line_and_the_old_file_stays(tmp_path, number, words):
    path = tmp_path / "model.pth"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(ZssError) as caught:
        writing.write_atomic(path, write)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written, ")
    assert words in message
    assert names(tmp_path) == ["model.pth"]
    assert path.read_text() == "old"
    if number == errno.ENOSPC:
        assert " MiB free); make room, or name another folder; what was there stays" in message


@contextmanager
def files_of_at_most(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "torch"])
def test_writers_that_hide_what_the_system_said_are_asked_again(tmp_path, save):
    """Their errors name neither the file nor the reason."""
    path = tmp_path / "model.pth"
    path.write_text("old")
    state = {"weight": torch.zeros(200_000)}
    with pytest.raises(ZssError) as caught, files_of_at_most(100_000):
        writing.write_atomic(path, lambda temporary: save(state, temporary))
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written, files may not become that large here")
    assert names(tmp_path) == ["model.pth"]
    assert path.read_text() == "old"


def test_an_error_of_the_writer_that_has_nothing_to_do_with_the_disk_is_its_own(tmp_path):
    with pytest.raises(RuntimeError, match="^mine$"):
        writing.write_atomic(
            tmp_path / "a", lambda path: (_ for _ in ()).throw(RuntimeError("mine"))
        )
    with pytest.raises(FileNotFoundError, match="source"):
        writing.write_atomic(tmp_path / "a", lambda path: (tmp_path / "source").read_text())
    assert names(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for path in (tmp_path / "runs" / "a.txt", tmp_path / "runs" / "deep" / "a.txt"):
        with pytest.raises(ZssError) as caught:
            writing.write_atomic(path, fill("x"))
        assert f"{tmp_path / 'runs'} is a file where a folder is needed" in str(caught.value)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ZssError, match="taken: cannot be written, a folder of that name is there"):
        writing.write_atomic(tmp_path / "taken", fill("x"))
    with pytest.raises(ZssError, match="the name is too long"):
        writing.write_atomic(tmp_path / ("n" * 256), fill("x"))
    assert names(tmp_path) == ["runs", "taken"]


def test_a_link_is_made_in_one_step_and_replaces_what_is_there(tmp_path):
    (tmp_path / "photo").write_text("original")
    link = tmp_path / "images" / "link"
    for _ in range(2):
        writing.link_atomic(link, tmp_path / "photo")
        assert link.is_symlink()
        assert link.read_text() == "original"
    assert names(link.parent) == ["link"]


WRITER = """
import os, sys, time
from pathlib import Path
from zss_d2.utils import writing

def write(path):
    path.write_text("half")
    os.utime(path, (0, 0))
    print("writing", flush=True)
    time.sleep(60)

writing.write_atomic(Path(sys.argv[1]), write)
"""


def test_what_a_killed_process_was_writing_is_removed_but_not_before(tmp_path, caplog):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "model.pth")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        (half,) = names(tmp_path)
        # It looks as if it were from 1970, and yet somebody writes it.
        assert writing.remove_leftovers(tmp_path) == 0
        assert names(tmp_path) == [half]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(tmp_path) == [half]
    with caplog.at_level(logging.INFO):
        assert writing.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: removed 1 half-written files of processes that were killed"
    ]


def test_only_old_temporary_files_go_and_nothing_behind_links(tmp_path, caplog):
    folder, outside = tmp_path / "output", tmp_path / "outside"
    (folder / "masks").mkdir(parents=True)
    outside.mkdir()
    old_names = [".a.png.0a1b2c3d.tmp", ".model_0000039.pth.4711.tmp", "masks/.m.png.ffffffff.tmp"]
    for name in old_names:
        aged_file = folder / name
        aged_file.write_text("half")
        aged(aged_file, HOUR)
    kept = [".new.png.0a1b2c3d.tmp", ".editor.tmp", "a.0a1b2c3d.tmp", ".b.0a1b2c3d.png"]
    for name in kept:
        (folder / name).write_text("somebody's")
    for name in kept[1:]:
        aged(folder / name, HOUR)
    theirs = aged(_file(outside / ".x.png.0a1b2c3d.tmp"), HOUR)
    (folder / "linked").symlink_to(outside)
    aged_link = folder / ".link.jpg.0a1b2c3d.tmp"
    aged_link.symlink_to(theirs)
    aged(aged_link, HOUR)
    (folder / ".folder.0a1b2c3d.tmp").mkdir()
    aged(folder / ".folder.0a1b2c3d.tmp", HOUR)

    assert writing.remove_leftovers(folder) == 3
    assert (folder / "masks/.m.png.ffffffff.tmp").exists()
    assert writing.remove_leftovers(folder, recursive=True) == 1
    assert names(folder) == sorted([*kept, "linked", "masks", ".folder.0a1b2c3d.tmp"])
    assert theirs.read_text() == "somebody's"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert writing.remove_leftovers(folder, recursive=True) == 0
        assert writing.remove_leftovers(tmp_path / "nowhere", recursive=True) == 0
    assert caplog.records == []


def _file(path: Path) -> Path:
    path.write_text("somebody's")
    return path


@pytest.mark.parametrize("system", ["without locks", "a file system without locks"])
def test_where_nothing_can_be_locked_leftovers_stay_for_a_day(tmp_path, monkeypatch, system):
    young, old = (tmp_path / f".{name}.0a1b2c3d.tmp" for name in ("young", "old"))
    aged(_file(young), 2 * HOUR)
    aged(_file(old), 25 * HOUR)
    if system == "without locks":
        monkeypatch.setattr(writing, "fcntl", None)
    else:

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(writing.fcntl, "flock", refuse)
    writing.write_atomic(tmp_path / "file", fill("x"))
    assert writing.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == [young.name, "file"]


def test_what_vanishes_or_cannot_be_opened_is_passed_over(tmp_path, monkeypatch):
    for name in ("gone", "locked_away", "ordinary"):
        aged(_file(tmp_path / f".{name}.0a1b2c3d.tmp"), HOUR)
    ordinary_open = os.open

    def refuse(path: str, *arguments: int) -> int:
        if "gone" in path:
            raise FileNotFoundError(errno.ENOENT, "vanished", path)
        if "locked_away" in path:
            raise PermissionError(errno.EACCES, "no", path)
        return ordinary_open(path, *arguments)

    monkeypatch.setattr(writing.os, "open", refuse)
    assert writing.remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == [".gone.0a1b2c3d.tmp", ".locked_away.0a1b2c3d.tmp"]


def test_the_stamp_of_a_mask_does_not_touch_its_pixels(tmp_path):
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 999
    writing.write_mask(tmp_path / "mask.png", labels, "made from this")
    with Image.open(tmp_path / "mask.png") as image:
        assert writing.read_stamp(image) == "made from this"
        assert np.array_equal(np.asarray(image), labels)
    writing.write_mask(tmp_path / "mask.png", labels)
    with Image.open(tmp_path / "mask.png") as image:
        assert writing.read_stamp(image) == ""
