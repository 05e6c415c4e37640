"""docs/own_data.md: every block of the page does what it says, on toy data with tiny settings."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT
from zss_d2.data.files.images import read_mask

PAGE = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
# Instead of the configs of the page: the same methods, tiny and with random weights.
TINY = {"INPUT": {"RESIZE_BASE": [256, 64], "CROP": {"SIZE": [64, 64]}, "MIN_SIZE_TEST": 64}}
SMALL = {**TINY, "DATALOADER": {"NUM_WORKERS": 0}, "SOLVER": {"IMS_PER_BATCH": 2}}
CLIP = {"DEVICE": "cpu", "CLIP": {"NAME": "zss-tiny", "PRETRAINED": ""}}
CONFIGS = {
    "ldvc_voc": {"_BASE_": "ldvc_voc_tiny_cpu.yaml", **SMALL},
    "zegclip_voc": {
        "_BASE_": "ldvc_voc_tiny_cpu.yaml",
        **SMALL,
        "MODEL": {"META_ARCHITECTURE": "ZegCLIP"},
    },
    "naclip_ade20k": {
        "_BASE_": "naclip_ade20k.yaml",
        "MODEL": CLIP,
        "INPUT": {"MIN_SIZE_TEST": 64},
        "TEST": {"SLIDE": {"ENABLED": False}},
    },
}
SHORTER = {"SOLVER.MAX_ITER": "2", "TEST.EVAL_PERIOD": "1"}
# All commands in one process, which imports once. The trainings of the sweep are not done: their
# configs are made and checked, and results made up.
RUN = """
import json, subprocess, sys
from pathlib import Path
from tests.analysis.sweep.pretended import results_of
from zss_d2 import cli
from zss_d2.analysis.sweep import runner

def start(run, *_):
    text = results_of(run, {"mIoU": 1.0, "mIoU-S": 1.0, "mIoU-U": 1.0, "hIoU": 1.0, "pAcc": 1.0})
    (run.folder / "results.json").write_text(text)
    (run.folder / "config.yaml").write_text(run.config().dump())
    return subprocess.Popen([sys.executable, "-S", "-c", ""])

runner._start = start
for kind, content in json.loads(sys.stdin.read()):
    if kind == "python":
        exec(content, {})
    elif status := cli.main(content):
        sys.exit(f"{content}: {status}")
"""


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The arguments of ``zss``, with tiny configs and few iterations."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "zss"
        words = [f"configs/{word}.yaml" if word in CONFIGS else word for word in words]
        for key, value in SHORTER.items():
            if key in words:
                words[words.index(key) + 1] = value
        found.append(words)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after everything has been done in turn."""
    folder = tmp_path_factory.mktemp("own_data")
    (folder / "configs").mkdir()
    for name, content in CONFIGS.items():
        content = content | {"_BASE_": str(ROOT / "configs" / content["_BASE_"])}
        (folder / f"configs/{name}.yaml").write_text(yaml.safe_dump(content))
    steps: list[tuple[str, object]] = []
    for kind, block in blocks():
        if kind == "yaml":
            (folder / "yard_fold.yaml").write_text(block)
        elif kind == "python":
            steps.append((kind, block))
        else:
            assert kind == "bash"
            steps += [(kind, words) for words in commands(block)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "DETECTRON2_DATASETS": str(folder / "datasets"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=environment,
        input=json.dumps(steps),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_the_page_names_what_it_needs():
    kinds = [kind for kind, _ in blocks()]
    assert set(kinds) == {"bash", "yaml", "python"}
    used = {words[0] for kind, block in blocks() if kind == "bash" for words in commands(block)}
    assert {"masks", "check", "train", "report", "sweep", "predict"} <= used


def test_annotations_become_the_masks_that_were_drawn(place):
    for path in sorted((place / "my_data/masks").iterdir()):
        np.testing.assert_array_equal(read_mask(place / "yard/masks" / path.name), read_mask(path))


def test_trainings_and_the_baseline_leave_metrics(place):
    for run in ("baseline", "yard", "again"):
        results = json.loads((place / f"output/{run}/results.json").read_text())
        assert 0 <= results["zss_yard_val"]["mIoU-U"] <= 100
    assert (place / "output/yard/model_best.pth").is_file()
    assert (place / "report/report.html").is_file()
    assert (place / "panel.png").is_file()


def test_the_sweep_holds_a_seen_class_out(place):
    (config, *others) = (place / "output/choice").rglob("config.yaml")
    assert len(others) == 3
    assert yaml.safe_load(config.read_text())["DATASETS"]["TEST"] == ["zss_yard_fold_val"]


def test_what_was_labelled_comes_back_as_it_was_written(place):
    labels = json.loads((place / "labelled/predict.json").read_text())
    assert labels
    assert (place / "labelled/labelstudio.json").is_file()
    classes = [
        yaml.safe_load((place / f"{name}/{name}.yaml").read_text())["classes"]
        for name in ("yard", "more")
    ]
    assert classes[0] == classes[1]


def test_the_model_is_a_folder(place):
    assert (place / "yard-model/model.safetensors").is_file()
    assert list((place / "labelled/overlay").glob("image.png"))
