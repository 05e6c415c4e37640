"""What `make test LOWEST=1` installs follows from setup.py alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NAMES = (".ci/lowest.py", "setup.py", "README.md", "detectron2_lite/setup.py")


def run(root: Path) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(root / ".ci" / "lowest.py")]
    return subprocess.run(script, capture_output=True, text=True)


def copy(root: Path) -> Path:
    """What the script reads, in another folder."""
    version = "detectron2_lite/detectron2/__init__.py"
    for name in (*NAMES, version):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    return root


def test_every_requirement_is_pinned_once() -> None:
    lines = run(ROOT).stdout.splitlines()
    pinned = [Requirement(line) for line in lines]
    names = {requirement.name for requirement in pinned}
    assert len(names) == len(pinned) > 25
    assert {"torch", "open_clip_torch", "pytest", "yacs"} <= names
    assert all(str(requirement.specifier).startswith("==") for requirement in pinned)


def test_a_raised_bound_is_followed(tmp_path: Path) -> None:
    setup = copy(tmp_path) / "setup.py"
    setup.write_text(setup.read_text().replace('"tqdm>=', '"tqdm>=99.'))
    assert "tqdm==99." in run(tmp_path).stdout


def test_an_upper_bound_is_left_out() -> None:
    assert '"gradio>=6.0,<7"' in (ROOT / "setup.py").read_text()
    assert "gradio==6.0" in run(ROOT).stdout.splitlines()


def test_a_requirement_without_a_bound_is_named(tmp_path: Path) -> None:
    setup = copy(tmp_path) / "setup.py"
    setup.write_text(setup.read_text().replace('"filelock>=3', '"filelock<5", "filelock>=3'))
    failed = run(tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.strip().endswith("no lower bound in filelock<5; write name>=bound")
