"""Fixtures shared by all tests: a prepared toy VOC and the tiny configuration."""

from __future__ import annotations

import os

# The models here are tiny: more threads only wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# isort: split
import gc
import multiprocessing
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from packaging.version import Version

import zss_d2  # noqa: F401  registers data sets and methods
from zss_d2.config.defaults import add_zss_config
from zss_d2.data.synthetic.toy_voc import generate
from zss_d2.engine.processes import interrupt

ROOT = Path(__file__).resolve().parent.parent
TINY_CONFIG = ROOT / "configs" / "ldvc_voc_tiny_cpu.yaml"
# Real photographs, used where they are present; see test_trainer.py.
REAL_VOC = Path(os.environ.get("ZSS_REAL_VOC", ROOT.parent / "shared/realdata/VOC2012"))
# For tests that hold on any device.
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))

# A shell's background job ignores Ctrl-C, one under nohup the end of its terminal, and so would the
# commands that tests start to send them these signals.
for signum, default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(signum) == signal.SIG_IGN:
        signal.signal(signum, default)


def missing_needs() -> dict[str, str]:
    """What this machine lacks for the tests of each of these markers; "": nothing."""
    no_gradio = "" if find_spec("gradio") else "gradio is not installed; make test-web does that"
    no_browser = (
        ""
        if find_spec("selenium") and shutil.which("chromedriver")
        else (
            "selenium, or Chromium with its driver, is not installed; apt-get install "
            "chromium-driver and make test-web do that"
        )
    )
    packages = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
    no_onnx = f"{packages[0]} is not installed; make setup does that" if packages else ""
    if Version(torch.__version__) < Version("2.7"):
        no_onnx = "torch 2.6 exports no batches of any number"
    return {
        "onnx": no_onnx,
        "gpu": "" if torch.cuda.is_available() else "no CUDA device",
        "gradio": no_gradio,
        "browser": no_gradio or no_browser,
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, missing in missing_needs().items():
        for item in items:
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=missing))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in a line each what was not run for want of something, and what ran on a GPU.

    With xdist, this process has collected no test.
    """

    def count(marker: str, *outcomes: str) -> int:
        reports = [r for outcome in outcomes for r in terminalreporter.stats.get(outcome, ())]
        return sum(marker in report.keywords for report in reports)

    for marker, missing in missing_needs().items():
        if missing and (number := count(marker, "skipped")):
            kind = marker.upper() if marker == "gpu" else marker
            line = f"{number} {kind} tests not run: {missing}"
            terminalreporter.write_line(line, yellow=True)
    if done := count("gpu", "passed", "failed"):
        name = torch.cuda.get_device_name()
        terminalreporter.write_line(f"{done} GPU tests run on {name}")


def prepare_voc(voc: Path, root: Path, *options: str) -> None:
    """Run the preparation script so that ``root`` can serve as DETECTRON2_DATASETS."""
    script = [sys.executable, str(ROOT / "datasets/prepare_voc.py"), "--voc-root", str(voc)]
    output = ["--output", str(root / "zss/voc"), "--workers", "1"]
    subprocess.run([*script, *output, *options], check=True, capture_output=True)


def loads_torch(pid: int) -> bool:
    """Whether a process of this machine has begun to import torch, which takes it seconds."""
    return b"libtorch" in Path(f"/proc/{pid}/maps").read_bytes()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_signal_of_another_test() -> Iterator[None]:
    """A process that was once asked to stop stops whatever it is doing, also in the next test."""
    yield
    interrupt._stop.signum, interrupt._stop.deferred = None, False


@pytest.fixture(autouse=True)
def no_loader_of_another_test() -> Iterator[None]:
    """Workers of a loader in garbage end with it, not when a later test, or its fork, finds it."""
    yield
    if multiprocessing.active_children():
        gc.collect()


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared DETECTRON2_DATASETS folder: 8 training and 5 validation images of toy VOC."""
    root = tmp_path_factory.mktemp("datasets")
    generate(root / "VOC2012", num_train=8, num_val=5, seed=0)
    prepare_voc(root / "VOC2012", root)
    return root


@pytest.fixture
def toy_voc(voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`voc_root`, set as DETECTRON2_DATASETS."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(voc_root))
    yield voc_root


@pytest.fixture
def make_cfg(tmp_path: Path) -> Callable[..., CfgNode]:
    """``make_cfg("KEY", value, ...)``: the tiny configuration with overrides."""

    def make(*overrides: object) -> CfgNode:
        cfg = get_cfg()
        add_zss_config(cfg)
        cfg.merge_from_file(str(TINY_CONFIG))
        cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "output"), *overrides])
        return cfg

    return make
