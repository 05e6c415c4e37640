"""When launches are replayed and when not, with a recorder of a CPU in the place of CUDA's."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from tests.modeling.all_methods import METHODS
from tests.modeling.method_tester import batch
from zss_d2.clip.wording import Vocabulary, vocabulary_key
from zss_d2.modeling.inference.graphs import (
    BEFORE_RECORDING,
    MOST_GRAPHS,
    REST,
    GraphedLogits,
    tensors_read,
)


class Tape:
    """Records as CUDA does: a replay computes on what was read then, at its address.

    Attributes:
        recorded: shapes of the inputs, over all tapes.
        replayed: their number of replays.
    """

    recorded: list[tuple[int, ...]]
    replayed: list[tuple[int, ...]]

    def __call__(self, compute, images):
        self.recorded.append(tuple(images.shape))

        def replay(new):
            images.copy_(new)
            self.replayed.append(tuple(images.shape))
            return compute(images).clone()

        return replay


@pytest.fixture
def tape(monkeypatch) -> type[Tape]:
    monkeypatch.setattr(Tape, "recorded", [], raising=False)
    monkeypatch.setattr(Tape, "replayed", [], raising=False)
    return Tape


@pytest.fixture
def graphs(tape) -> GraphedLogits:
    return GraphedLogits(tape, "cpu")


class Scale(nn.Module):
    """Logits: the input times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, images):
        return images * self.weight + self.offset


@pytest.fixture
def scale() -> Scale:
    return Scale().eval()


@torch.no_grad()
def ask(graphs, module, size=4, key="names", times=1):
    for _ in range(times):
        images = torch.randn(1, 3, size, size)
        assert torch.equal(graphs(module, key, module, images), module(images))


def test_an_input_that_comes_up_again_is_recorded_once_and_replayed(graphs, scale, tape):
    ask(graphs, scale, times=BEFORE_RECORDING)
    assert not tape.recorded
    ask(graphs, scale, times=3)
    assert tape.recorded == [(1, 3, 4, 4)]
    assert len(tape.replayed) == 3


def test_another_size_or_other_names_are_another_graph(graphs, scale, tape):
    for size, key in ((4, "a"), (8, "a"), (4, "b")):
        ask(graphs, scale, size, key, BEFORE_RECORDING + 1)
    assert len(tape.recorded) == len(graphs) == 3
    ask(graphs, scale, 12, "a", BEFORE_RECORDING)
    assert len(tape.recorded) == 3


def test_graphs_and_what_is_known_of_inputs_stay_few(graphs, scale):
    """As with a word list of its own for every call."""
    for index in range(MOST_GRAPHS + 3):
        ask(graphs, scale, key=index, times=BEFORE_RECORDING + 1)
    assert len(graphs) == MOST_GRAPHS
    for index in range(600):
        ask(graphs, scale, key=("once", index))
    assert len(graphs) == MOST_GRAPHS
    assert len(graphs._counts) <= 256


def test_the_one_that_was_not_used_for_longest_goes(graphs, scale, tape):
    for index in range(MOST_GRAPHS):
        ask(graphs, scale, key=index, times=BEFORE_RECORDING + 1)
    ask(graphs, scale, key=0, times=REST)
    ask(graphs, scale, key="new", times=BEFORE_RECORDING + 1)
    before = len(tape.recorded)
    ask(graphs, scale, key=0, times=REST)
    assert len(tape.recorded) == before
    ask(graphs, scale, key=1)
    assert len(tape.recorded) == before + 1


def test_images_of_very_many_sizes_are_rarely_recorded(graphs, scale, tape):
    sizes = 3 * MOST_GRAPHS
    for _ in range(20):
        for index in range(sizes):
            ask(graphs, scale, key=index)
    assert MOST_GRAPHS < len(tape.recorded) <= MOST_GRAPHS + 20 * sizes // REST
    assert len(tape.replayed) > 20 * sizes // 6  # a third of them, but for recordings


def written_to(module):
    module.weight.mul_(3)


def replaced(module):
    module.weight = nn.Parameter(torch.tensor(7.0))


def loaded(module):
    module.load_state_dict({"weight": torch.tensor(5.0), "offset": torch.tensor(1.0)})


def buffer_written_to(module):
    module.offset.add_(1)


@pytest.mark.parametrize("change", [written_to, replaced, loaded, buffer_written_to])
def test_other_weights_are_recorded_anew(graphs, scale, tape, change):
    ask(graphs, scale, times=BEFORE_RECORDING + 1)
    with torch.no_grad():
        change(scale)
    ask(graphs, scale)
    assert not len(graphs)
    ask(graphs, scale, times=BEFORE_RECORDING)
    assert len(tape.recorded) == 2


def test_nothing_is_replayed_where_that_would_be_wrong(graphs, scale, tape, monkeypatch):
    ask(graphs, scale, times=BEFORE_RECORDING + 1)
    images, before = torch.randn(1, 3, 4, 4), len(tape.replayed)
    logits = graphs(scale, "names", scale, images)
    logits.sum().backward()  # with gradients
    assert scale.weight.grad is not None
    with torch.no_grad():
        graphs(scale.train(), "names", scale, images)
        scale.eval()
        with torch.autocast("cpu", torch.bfloat16):
            graphs(scale, "names", scale, images)
        graphs(scale, "names", scale, images.double())
        elsewhere = GraphedLogits(tape)  # of CUDA
        for _ in range(5):
            elsewhere(scale, "names", scale, images)
        for function in ("torch.compiler.is_compiling", "torch.jit.is_tracing"):
            with monkeypatch.context() as patch:
                patch.setattr(function, lambda: True)
                graphs(scale, "names", scale, images)
    assert len(tape.replayed) == before
    assert len(tape.recorded) == 1


def test_a_failure_is_said_once_and_then_all_is_computed_as_ever(scale, caplog):
    def new_recorder():
        return lambda compute, images: (_ for _ in ()).throw(RuntimeError("no capture\nof this"))

    graphs = GraphedLogits(new_recorder, "cpu")
    ask(graphs, scale, times=6)
    ask(graphs, scale, size=8, times=6)
    assert [record.getMessage() for record in caplog.records] == [
        "TEST.CUDA_GRAPHS has no effect from here on: recording failed (no capture)"
    ]


def test_replays_serve_inference_mode_and_its_absence(graphs, scale, tape):
    """Whichever of them was on when the graph was recorded."""
    images = torch.randn(1, 3, 4, 4)
    with torch.inference_mode():
        for _ in range(BEFORE_RECORDING + 1):
            graphs(scale, "names", scale, images)
    with torch.no_grad():
        assert torch.equal(graphs(scale, "names", scale, images), scale(images))
    assert len(tape.replayed) == 2


def test_what_a_computation_reads_and_has_not_made():
    scale, table = Scale(), torch.randn(3, 2)

    def compute(images):
        made = images.flatten(1) * 2
        made.add_(1)
        return scale(made) + table[:, :1].sum()

    found = tensors_read(compute, torch.randn(1, 3, 2, 2))
    assert {id(x) for x in found} == {id(x) for x in (scale.weight, scale.offset, table)}


def test_a_graph_holds_on_to_what_it_reads(graphs, scale):
    """Such as embeddings, which the text encoder lets go of."""
    table = torch.randn(())
    known = weakref.ref(table)
    with torch.no_grad():
        for _ in range(BEFORE_RECORDING + 1):
            graphs(scale, "names", lambda x, table=table: x * table, torch.randn(1, 3, 4, 4))
    del table
    gc.collect()
    assert known() is not None
    graphs.clear()
    gc.collect()
    assert known() is None


def test_copies_record_for_themselves(graphs, scale):
    ask(graphs, scale, times=BEFORE_RECORDING + 1)
    other = copy.deepcopy(graphs)
    assert len(other) == 0
    assert len(graphs) == 1


def test_vocabularies_are_told_apart_by_all_that_is_embedded():
    names = ("a", "b")
    keys = {
        vocabulary_key(x)
        for x in (
            names,
            Vocabulary(names),
            Vocabulary(names, {"a": ["c"]}),
            Vocabulary(names, {"b": ["c"]}),
            Vocabulary(names, {"a": ["c"]}, ["a {}."]),
            Vocabulary(names, {"a": ["c"]}, ["the {}."]),
        )
    }
    assert len(keys) == 6
    assert vocabulary_key(Vocabulary(names, {"a": ("c",)})) in keys


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_replayed_with_its_results(make_cfg, tape, method):
    """Also after its weights have moved on, and with other names in between."""
    torch.manual_seed(0)
    cfg = make_cfg(*METHODS[method], "TEST.CUDA_GRAPHS", True, "TEST.BATCH", 2)
    model = build_model(cfg)
    plain = copy.deepcopy(model)
    assert model.protocol.cuda_graphs
    model._graphs = GraphedLogits(tape, "cpu")
    items = batch((64, 64), (64, 64), (64, 90))
    with torch.no_grad():
        for _ in range(2):
            for names in (model.classes, ("dog", "zebra")):
                named = [{**item, "vocabulary": names} for item in items]
                for _ in range(BEFORE_RECORDING + 1):
                    for one, other in zip(model.eval()(named), plain.eval()(named), strict=True):
                        assert torch.equal(one["sem_seg"], other["sem_seg"])
            for network in (model, plain):
                network.train()
                for parameter in network.parameters():
                    parameter.data.mul_(1.01)  # leaves no trace
            assert not len(model._graphs)
    assert set(tape.recorded) == {(2, 3, 64, 64), (1, 3, 64, 96)}
    assert len(tape.recorded) == 8
