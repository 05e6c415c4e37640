"""Convolutions of a student: what of them a CPU can show of a GPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tests.conftest import ROOT
from zss_d2.modeling.methods.clip_zss.students import convolutions
from zss_d2.modeling.methods.clip_zss.students.convolutions import memory_format, triton_works

CUDA = torch.device("cuda")


@pytest.fixture
def tried(monkeypatch):
    """What trying Triton on a device raises; None: nothing."""
    triton_works.cache_clear()
    outcome = {"error": None}

    def attempt(device):
        if outcome["error"]:
            raise outcome["error"]

    monkeypatch.setattr(convolutions, "_try_triton", attempt)
    yield outcome
    triton_works.cache_clear()


def test_maps_lie_as_they_are_quick_on_a_device(tried):
    assert memory_format(torch.device("cpu")) == memory_format(CUDA) == torch.channels_last
    assert memory_format(torch.device("meta")) == torch.contiguous_format


def test_where_triton_fails_torchs_own_convolutions_are_taken_and_a_warning_says_so(tried, caplog):
    """They want maps channel by channel."""
    tried["error"] = RuntimeError("in the compiler:\nno Python.h")
    assert [memory_format(CUDA) for _ in range(2)] == [torch.contiguous_format] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "no Triton on cuda (no Python.h): depth-wise convolutions of MSCAN are torch's, which are "
        "slower"
    ]


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
