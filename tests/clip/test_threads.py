"""Threads of one process, such as those of a web server, do not change what others rely on."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

import open_clip
import pytest
import torch
from torch import nn

from tests.clip.weights.weight_files import tiny_clip
from zss_d2.clip import ImageEncoder, build_clip_towers
from zss_d2.clip.block import apply_block
from zss_d2.clip.frozen import remembered
from zss_d2.clip.weights.file import read_file


def in_threads(*functions: Callable[[], object]) -> None:
    """Run all at once; raises what one of them raises."""
    errors = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def encoder() -> ImageEncoder:
    clip = open_clip.create_model("zss-tiny").eval().requires_grad_(False)
    return ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0).eval()


def test_the_shortcut_of_attention_stays_on_for_everybody(monkeypatch):
    """Both are inside at once and the first to come is the first to leave: no flag is put back."""
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", True)
    first, second = encoder(), encoder()
    second_is_inside, first_has_left = threading.Event(), threading.Event()
    seen = []

    def wait_for_the_second(*_: object) -> None:
        seen.append(torch.backends.mha.get_fastpath_enabled())
        assert second_is_inside.wait(30)

    def wait_for_the_first(*_: object) -> None:
        second_is_inside.set()
        assert first_has_left.wait(30)

    first.visual.ln_post.register_forward_hook(wait_for_the_second)
    second.visual.ln_post.register_forward_hook(wait_for_the_first)
    images = torch.randn(1, 3, 64, 64)

    def run_first() -> None:
        first(images)
        first_has_left.set()

    in_threads(run_first, lambda: second(images))
    assert seen == [True]
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("scale", [None, 0.1])
def test_a_block_is_what_open_clip_has_without_the_shortcut(scale):
    """To the last bit, in training and in testing."""
    torch.manual_seed(0)
    block = open_clip.transformer.ResidualAttentionBlock(64, 4, ls_init_value=scale).eval()
    tokens = torch.randn(2, 17, 64)
    assert torch.equal(apply_block(block, tokens), block(tokens))
    with torch.no_grad():
        expected = block.train()(tokens)
        assert torch.equal(apply_block(block.eval(), tokens), expected)


def test_a_block_with_attention_of_its_own_is_called(monkeypatch):
    class Block(nn.Module):
        attn = None

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens + 1

    assert apply_block(Block(), torch.zeros(1)).item() == 1


def test_building_a_tower_filters_nobodys_log(tmp_path, caplog, monkeypatch):
    """Nor does open_clip warn of missing weights when they come from a file."""
    torch.save(tiny_clip(quick_gelu=True).state_dict(), tmp_path / "clip.pt")
    caplog.clear()
    filters = []
    monkeypatch.setattr(logging.getLogger(), "addFilter", filters.append)
    with caplog.at_level(logging.WARNING):
        build_clip_towers("zss-tiny", str(tmp_path / "clip.pt"), quick_gelu="true")
    assert not caplog.text
    assert not filters


def test_what_may_be_read_is_the_same_at_all_times(tmp_path, monkeypatch):
    """A list for the time of one call would lose what another thread has added meanwhile."""
    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pt")
    changes = []
    monkeypatch.setattr(torch.serialization, "safe_globals", lambda _: changes.append(1))
    assert read_file(tmp_path / "w.pt").entries["args"].lr == 1
    assert not changes
    assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_what_is_remembered_may_be_dropped_at_any_time():
    """More is asked for than is remembered, and moves of weights clear it."""
    cache: OrderedDict[tuple, int] = OrderedDict()

    def ask() -> None:
        for n in range(20_000):
            key = n * 7 % 12
            assert remembered(cache, (key,), lambda key=key: key, 8) == key
            if n % 100 == 0:
                cache.clear()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(ask, ask, ask, ask)
    finally:
        sys.setswitchinterval(before)
