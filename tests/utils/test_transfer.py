"""Nobody waits for CUDA; other devices, which read from memory later, are waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import zss_d2
from zss_d2.utils.transfer import fetched, sent


@pytest.mark.parametrize(("device", "expected"), [("cuda:1", True), ("mps", False), ("cpu", False)])
def test_only_cuda_is_not_waited_for(monkeypatch, device, expected):
    asked = []
    monkeypatch.setattr(Tensor, "to", lambda self, *args, **kwargs: asked.append((args, kwargs)))
    sent(torch.ones(1), torch.device(device))
    assert asked == [((torch.device(device),), {"non_blocking": expected})]


@pytest.mark.gpu
def test_what_is_fetched_lies_in_pinned_memory():
    values = torch.arange(1000, device="cuda")
    there = fetched(values)
    torch.cuda.synchronize()
    assert there.is_pinned()
    assert there.tolist() == list(range(1000))


def test_nothing_else_sends_without_waiting():
    """Where the source is released before MPS has read it, values are wrong without an error."""
    package = Path(zss_d2.__file__).parent
    found = [p.name for p in package.rglob("*.py") if "non_blocking" in p.read_text("utf-8")]
    assert found == ["transfer.py"]
