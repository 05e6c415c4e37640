"""An installed package works outside of a checkout: the configs and the preparation come along."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

BUILD = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
LITE = ROOT / "detectron2_lite"
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The content of a wheel that is built from the files of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # Where it may leave what it builds.
    for name in ("zss_d2", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    build = subprocess.run(
        [*BUILD, "--wheel-dir", str(folder), "."], cwd=source, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def zss(installed, tmp_path) -> Run:
    """Run ``zss`` of the wheel in an empty folder."""
    import detectron2

    place = Path(detectron2.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{installed}{os.pathsep}{place}",
        "DETECTRON2_DATASETS": str(tmp_path / "data"),
    }
    (tmp_path / "work").mkdir()

    def run(*arguments: str, python: tuple[str, ...] = ("-m", "zss_d2")):
        return subprocess.run(
            [sys.executable, *python, *arguments],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_it_holds_every_config(installed):
    def names(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")}

    assert names(installed / "zss_d2/configs") == names(ROOT / "configs")
    assert not (installed / "configs").exists()


@pytest.mark.slow
def test_data_is_prepared_and_a_config_trained_by_their_names(zss, installed, tmp_path):
    where = zss("-c", "import zss_d2; print(zss_d2.__file__)", python=())
    assert where.stdout.strip() == str(installed / "zss_d2/__init__.py")
    small = ("--train", "8", "--dev", "2", "--val", "2", "--workers", "1")
    made = zss("prepare", "mini", *small)
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "data/zss/mini/images/train").iterdir())) == 8
    quick = ("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0")
    trained = zss("train", "ldvc_mini", *quick, "OUTPUT_DIR", "run")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "work/run/results.json").is_file()
    swept = zss("sweep", "configs/maskclip_mini.yaml", "--output", "swept")
    assert swept.returncode == 0, swept.stderr
    assert (tmp_path / "work/swept/table.md").is_file()
    missing = zss("train", "ldvc_voc", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", "voc")
    assert missing.returncode == 2
    assert "run `zss prepare voc`" in missing.stderr
