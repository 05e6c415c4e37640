"""TF32 is allowed within scopes only, and forbidden as long as any scope forbids it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from zss_d2.utils import tf32 as module
from zss_d2.utils.tf32 import tf32


def state() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def torch_as_it_starts() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_scopes_nest_and_end_with_what_was_there():
    with tf32(True):
        assert state() == (True, True)
        with tf32(False):
            assert state() == (False, False)
            with tf32(True):
                assert state() == (False, False)
        assert state() == (True, True)
    assert state() == (False, True)


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_torch_can_tell_the_precision_that_was_chosen_for_all_backends(chosen):
    """Compilers ask for it, within a scope or later."""
    torch.set_float32_matmul_precision(chosen)
    with tf32(True):
        assert torch.get_float32_matmul_precision() == (chosen if chosen != "highest" else "high")
        with tf32(False):
            assert torch.get_float32_matmul_precision() == "highest"
            assert state() == (False, False)
    assert torch.get_float32_matmul_precision() == chosen


def test_a_program_may_switch_that_of_cuda_alone():
    for allowed in (True, False, True):
        torch.backends.cuda.matmul.allow_tf32 = allowed
        for inside in (True, False):
            with tf32(inside):
                assert state() == (inside, inside)
            assert state() == (allowed, True)
        assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")


def test_a_scope_ends_with_an_error_too():
    with pytest.raises(ValueError), tf32(True), tf32(False):
        raise ValueError
    assert state() == (False, True)


def test_threads_that_overlap_leave_nothing_behind():
    """The first to come is the first to leave; where one forbids it, it is off for both."""
    forbids, leaves = threading.Event(), threading.Event()
    seen = []

    def first() -> None:
        with tf32(True):
            forbids.wait(30)
            seen.append(state())
        leaves.set()

    def second() -> None:
        with tf32(False):
            forbids.set()
            leaves.wait(30)
            seen.append(state())

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [(False, False)] * 2
    assert state() == (False, True)


def test_a_graph_that_is_traced_holds_no_switch(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with tf32(True):
        assert state() == (False, True)


def test_a_program_that_uses_the_newer_names_is_left_alone(monkeypatch, caplog):
    """Torch refuses to read one way what was set the other way."""

    def refuse() -> None:
        raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(module, "_foreign", False)
    monkeypatch.setattr(module, "_state", refuse)
    for _ in range(2):
        with tf32(True):
            pass
    assert caplog.text.count("MODEL.TF32 has no effect") == 1
