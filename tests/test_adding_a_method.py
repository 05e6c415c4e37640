"""docs/adding_a_method.md: a method outside this repository, from its three blocks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

TINY = (
    *("MODEL.DEVICE", "cpu", "MODEL.CLIP.NAME", "zss-tiny", "MODEL.CLIP.PRETRAINED", ""),
    *("INPUT.RESIZE_BASE", "(256, 64)", "INPUT.CROP.SIZE", "(64, 64)", "INPUT.MIN_SIZE_TEST", "64"),
    *("TEST.SLIDE.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2"),
    *("SOLVER.WARMUP_ITERS", "1", "DATALOADER.NUM_WORKERS", "0"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blocks of the page as the files that it says they are, the package installed."""
    folder = tmp_path_factory.mktemp("project")
    page = (ROOT / "docs/adding_a_method.md").read_text()
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert set(blocks) == {"python", "toml", "yaml"}
    (folder / "linear_head.py").write_text(blocks["python"])
    (folder / "linear_head_voc.yaml").write_text(blocks["yaml"])
    (folder / "zss_d2").symlink_to(ROOT)  # the checkout that the page speaks of
    # What pip makes of pyproject.toml.
    name, version = re.findall(r'^(?:name|version) = "(.+)"', blocks["toml"], re.MULTILINE)
    group, entry, module = re.search(
        r'entry-points\."(.+)"\]\n(\w+) = "(\w+)"', blocks["toml"]
    ).groups()
    info = folder / "installed" / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {module}\n")
    return folder


def run(project: Path, voc: Path, *command: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (project, project / "installed", ROOT)))
    environment = os.environ | {"PYTHONPATH": paths, "DETECTRON2_DATASETS": str(voc)}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def output(project: Path, voc_root: Path) -> Path:
    """The folder of a run of two iterations."""
    script = (str(ROOT / "train_net.py"), "--config-file", "linear_head_voc.yaml")
    done = run(project, voc_root, *script, *TINY)
    assert done.returncode == 0, done.stderr
    return project / "output/linear_head_voc"


def test_the_method_trains_and_is_evaluated(output):
    results = json.loads((output / "results.json").read_text())
    assert 0 <= results["zss_voc_val"]["mIoU"] <= 100
    metrics = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert max(line.get("total_loss", 0) for line in metrics) > 0
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["MODEL"]["LINEAR_HEAD"] == {"LABEL_SMOOTHING": 0.1, "SCALE": 20.0}


KEYS = {
    ("MODEL.LINEAR_HEAD.SCALE", 0.0): "MODEL.LINEAR_HEAD.SCALE is 0.0; use more than 0",
    ("MODEL.LINEAR_HEAD.SCAL", 1.0): "did you mean MODEL.LINEAR_HEAD.SCALE?",
    ("MODEL.LOSS.NAME", "smoth"): "use one of 'nel', 'softmax', 'smoothed'",
    ("MODEL.TEXT_ADAPTER.NAME", "no"): "use one of 'descriptor', 'none', 'shifted'",
    ("MODEL.CLIP.DENSE_TOKENS", "no"): "'gem', 'smooth'",
    (
        "MODEL.LOSS.NAME",
        "softmax",
        "MODEL.LINEAR_HEAD.LABEL_SMOOTHING",
        0.2,
    ): "has no effect: MODEL",
}


def test_its_keys_are_checked_as_ours(project, voc_root):
    code = f"""
import zss_d2
from zss_d2.engine import load_config
for opts in {list(KEYS)}:
    try:
        load_config("linear_head_voc.yaml", opts)
    except zss_d2.errors.ZssError as error:
        print(error)
"""
    done = run(project, voc_root, "-c", code)
    for line, message in zip(done.stdout.splitlines(), KEYS.values(), strict=True):
        assert message in line


def test_load_model_finds_it_too(project, voc_root, output):
    code = (
        "from zss_d2 import load_model; "
        f"model = load_model({str(output)!r}, device='cpu'); "
        "print(*(type(x).__name__ for x in (model.segmentor, model.segmentor.criterion)))"
    )
    done = run(project, voc_root, "-c", code)
    assert done.stdout.split() == ["LinearHead", "SmoothedLoss"], done.stderr


def test_a_method_that_cannot_be_loaded_is_said_and_stops_no_other(tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zss_d2.methods]\nhalf = no_such_module\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    command = [sys.executable, "-c", "import zss_d2.modeling"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "The method half of the package broken cannot be loaded" in done.stderr
