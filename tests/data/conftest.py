"""Generated VOC trees, and data of one's own, for the data tests."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from zss_d2.data.prepare import check_command
from zss_d2.data.synthetic import toy_custom, toy_voc

SCRIPTS = Path(__file__).parents[2] / "datasets"


def load_script(name: str) -> ModuleType:
    """The module behind ``python datasets/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def prepare_voc():
    return load_script("prepare_voc")


@pytest.fixture(scope="session")
def toy_tree(tmp_path_factory, prepare_voc) -> Path:
    """A DETECTRON2_DATASETS folder with VOC2012 (10 + 5 scenes) and its prepared copy."""
    root = tmp_path_factory.mktemp("datasets")
    toy_voc.generate(root / "VOC2012", 10, 5)
    command = ["--voc-root", str(root / "VOC2012"), "--output", str(root / "zss" / "voc")]
    assert prepare_voc.run([*command, "--copy", "--workers", "1"]) == 0
    return root


@pytest.fixture
def datasets(tmp_path, toy_tree, monkeypatch) -> Path:
    """A copy of ``toy_tree`` that a test may damage; DETECTRON2_DATASETS names it."""
    root = tmp_path / "datasets"
    shutil.copytree(toy_tree, root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return root


@pytest.fixture
def yard(tmp_path, monkeypatch) -> Path:
    """The yaml of six generated images; nothing else is below DETECTRON2_DATASETS."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    return toy_custom.generate(tmp_path / "yard")


@pytest.fixture
def run_check(capsys):
    """Run ``zss check``; gives (exit status, output, lines that begin with ``error: ``)."""

    def call(*arguments: str) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        status = check_command.main(["--workers", "1", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return status, out, [line for line in err.splitlines() if line.startswith("error: ")]

    return call


@pytest.fixture
def prepare(prepare_voc, datasets, capsys):
    """Run the command line on ``datasets``; gives (exit status, output, error stream)."""
    shutil.rmtree(datasets / "zss")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = prepare_voc.run(["--workers", "1", *arguments])
        return status, *capsys.readouterr()

    return run
