"""The real model: several processes, and processes that are killed, end with the same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.collection.conftest import files_of
from tests.conftest import ROOT
from zss_d2 import load_model
from zss_d2.data.synthetic.mini.scene import draw_scene

pytestmark = pytest.mark.slow

WORDS = ("red dotted thing", "grass", "wood")
QUICK = ("TEST.FLIP", "False", "TEST.SCALES", "(1.0,)")
ARGUMENTS = (
    *("--config-file", "configs/maskclip_mini.yaml", "--classes", *WORDS, "--batch", "2"),
    *("--formats", "labels", "overlay", "npz", "coco", "csv", "labelstudio", "cvat"),
    *("--opts", *QUICK),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """26 scenes, in chunks of eight; every third one is cut, so that sizes differ."""
    path = tmp_path_factory.mktemp("images")
    for index in range(26):
        image = draw_scene("val", index, 0).image
        Image.fromarray(image[: 64 if index % 3 == 0 else 96]).save(path / f"{index:02}.png")
    (path / "bad.png").write_bytes(b"no image")
    return path


def start(folder, output, *launcher: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *launcher, "predict.py", folder, *ARGUMENTS, "--output", output],
        cwd=ROOT,
        # Upstream's modules warn of what newer versions of torch will lack.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "out"
    process = start(folder, output)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith(f"failed: 1 of 27 images, such as {folder / 'bad.png'}: ")
    return output


def test_labels_are_those_of_python(undisturbed, folder):
    model = load_model(ROOT / "configs/maskclip_mini.yaml", device="cpu", opts=QUICK)
    for name in ("00", "25"):
        result = model.predict(folder / f"{name}.png", WORDS)
        labels = np.asarray(Image.open(undisturbed / f"labels/{name}.png"))
        assert (labels == result.labels).all()


def test_two_processes_write_what_one_does(undisturbed, folder, tmp_path):
    process = start(folder, tmp_path / "out", *TORCHRUN)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "failed: 1 of 27 images" in errors
    assert "26 of 27 images labelled" in output
    assert files_of(tmp_path / "out") == files_of(undisturbed)


def test_what_is_killed_and_stopped_goes_on_to_the_same_end(undisturbed, folder, tmp_path):
    output = tmp_path / "out"
    for signum, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        process = start(folder, output)
        before = len(list(output.glob("npz/*.npz")))
        while len(list(output.glob("npz/*.npz"))) < before + 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == status
    assert errors == "stopped by SIGTERM; what is done stays done, the same command goes on\n"
    done = {path: path.stat().st_mtime_ns for path in output.glob("npz/*.npz")}
    assert 6 <= len(done) < 26
    process = start(folder, output)
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert files_of(output) == files_of(undisturbed)
    again = [path for path, time_ in done.items() if path.stat().st_mtime_ns != time_]
    # But for those whose records the first signal has kept from being written.
    assert len(again) <= 2
