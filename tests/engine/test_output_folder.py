import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zss_d2.engine import output_folder
from zss_d2.engine.output_folder import LOCK, claim
from zss_d2.errors import ZssError

HOLD = """
import sys, time
from pathlib import Path
from zss_d2.engine.output_folder import claim
with claim(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_and_says_by_whom(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(output_folder, "PATIENCE_S", 0.1)
    owner = json.loads((tmp_path / LOCK).read_text())
    assert owner["process"] == holder.pid
    with (
        pytest.raises(ZssError, match=f"in use by process {holder.pid} on .*another OUTPUT_DIR"),
        claim(tmp_path),
    ):
        pass


def test_the_lock_ends_with_its_process_however_it_ends(holder, tmp_path):
    holder.kill()
    with claim(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert (tmp_path / LOCK).read_text() == ""


def test_half_written_files_of_killed_runs_go_and_those_of_others_stay(tmp_path):
    old = time.time() - 3600
    leftovers = [tmp_path / ".model_0000039.pth.4711.tmp", tmp_path / "predictions/.a.png.12.tmp"]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        os.utime(path, (old, old))
    fresh = tmp_path / ".model_0000049.pth.4712.tmp"
    fresh.write_text("being written")
    with claim(tmp_path):
        pass
    assert not any(path.exists() for path in leftovers)
    assert fresh.exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ZssError, match=f"{tmp_path}/file"), claim(tmp_path / "file/run"):
        pass
    assert Path(tmp_path / "file").read_text() == "mine"
