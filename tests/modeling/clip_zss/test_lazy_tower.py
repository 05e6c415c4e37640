"""A text tower that is built when a word asks for it waits for nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.clip.weights.weight_files import tiny_clip

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """The cache of the hub with the file of a CLIP, as a download leaves it."""
    repo = tmp_path / "hub/models--some--repo"
    commit = "0123456789" * 4
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    state = {key: value.clone() for key, value in tiny_clip(False).state_dict().items()}
    save_file(state, snapshot / "open_clip_model.safetensors")
    return tmp_path / "hub"


def test_a_tower_of_one_process_alone_is_no_barrier_for_the_other(hub_cache):
    environment = os.environ | {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.modeling.clip_zss.lazy_tower"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.split("\n")[-3:-1] == ["[(1, 64), None]", "[None, (1, 64)]"]
