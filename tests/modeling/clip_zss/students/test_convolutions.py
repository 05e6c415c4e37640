"""Convolutions of a student: what of them a CPU can show of a GPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("triton"), reason="Triton does not come with this torch")
def test_tritons_kernels_and_gradients_are_those_of_torch():
    """In its interpreter, which is chosen when Triton is imported: another process."""
    command = [sys.executable, "-m", "tests.modeling.clip_zss.students.depthwise"]
    run = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.stdout == "all equal\n", run.stderr[-2000:]
