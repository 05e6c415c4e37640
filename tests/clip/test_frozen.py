"""Frozen weights under autocast: cast once, in step with the originals, no part of the state."""

from __future__ import annotations

import copy
import io
import pickle

import open_clip
import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.modeling.all_methods import METHODS, TRAINED
from tests.modeling.method_tester import batch
from zss_d2.clip import ImageEncoder, frozen
from zss_d2.clip.frozen import FrozenCopy
from zss_d2.modeling.methods.clip_zss.teacher import FrozenReference

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def autocast() -> torch.autocast:
    return torch.autocast("cpu", BF16)


def tower(**settings) -> ImageEncoder:
    torch.manual_seed(0)
    clip = open_clip.create_model("zss-tiny").eval().requires_grad_(False)
    settings = {"prompt_length": 0, "prompt_dropout": 0.0} | settings
    return ImageEncoder(clip.visual, **settings).eval()


class Layers(nn.Module):
    """What autocast casts, and a LayerNorm, which it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class CastsOf(TorchDispatchMode):
    """Counts casts of given tensors, and of views of them."""

    def __init__(self, tensors):
        super().__init__()
        self.places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.count += args[0].untyped_storage().data_ptr() in self.places
        return function(*args, **(kwargs or {}))


def frozen_weights(model: nn.Module) -> list[Tensor]:
    held = [m.module for m in model.modules() if isinstance(m, FrozenReference)]
    parameters = [p for part in (model, *held) for p in part.parameters()]
    return [parameter for parameter in parameters if not parameter.requires_grad]


def build(make_cfg, method: str, *overrides: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(make_cfg(*METHODS[method], *overrides))


@pytest.mark.parametrize(
    ("method", "training"), [*((m, True) for m in TRAINED), *((m, False) for m in METHODS)]
)
def test_no_frozen_weight_is_cast_after_the_first_call(make_cfg, method, training):
    model = build(make_cfg, method, "MODEL.AUTOCAST", "bfloat16").train(training)
    weights, items = frozen_weights(model), batch((64, 64))
    assert weights or method == "CLIPZSS"
    counts = []
    for _ in range(2):
        with CastsOf(weights) as casts, torch.set_grad_enabled(training):
            model(items)
        counts.append(casts.count)
    assert counts[0] > 10 or (method == "CLIPZSS" and not training)
    assert counts[1] == 0


@pytest.mark.parametrize("method", ["LDVC-text-prompts", "ZegCLIP", "CLIPZSS"])
def test_losses_and_gradients_are_those_of_plain_autocast(make_cfg, method, monkeypatch):
    """Bit for bit, but for what LayerNorms round."""

    def in_single(norm: nn.LayerNorm, *args) -> Tensor:
        *_, x = args
        return F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(
            x
        )

    monkeypatch.setattr(frozen, "_normed", in_single)
    results = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(FrozenCopy, "of", lambda self, source, device: source)
        model = build(make_cfg, method, "MODEL.AUTOCAST", "bfloat16").train()
        torch.manual_seed(1)
        losses = model(batch((64, 64), (40, 90)))
        sum(losses.values()).backward()
        results.append((losses, {n: p.grad for n, p in model.named_parameters()}))
    (losses, gradients), (plain_losses, plain_gradients) = results
    assert all(torch.equal(losses[name], plain_losses[name]) for name in plain_losses)
    for name, gradient in plain_gradients.items():
        assert gradient is None or torch.equal(gradients[name], gradient), name


def test_products_and_norms_are_halved_and_the_rest_is_shared():
    layers, held = Layers(), FrozenCopy()
    layers.scale = nn.Parameter(torch.ones(8), requires_grad=False)
    assert held.of(layers, CPU) is layers
    with autocast():
        stand_in = held.of(layers, CPU)
        assert held.of(layers, CPU) is stand_in
    assert stand_in.scale is layers.scale
    for name in ("norm", "linear"):
        half, whole = getattr(stand_in, name), getattr(layers, name)
        assert half.weight.dtype == half.bias.dtype == BF16
        assert whole.weight.dtype == whole.bias.dtype == torch.float32


def test_norms_of_tokens_in_half_precision_are_off_by_one_rounding():
    layers, held = Layers(), FrozenCopy()
    nn.init.uniform_(layers.norm.weight, 0.5, 2)
    x = (100 + 3 * torch.randn(64, 8)).to(BF16)
    expected = F.layer_norm(x.float(), (8,), layers.norm.weight, layers.norm.bias)
    with autocast():
        found = held.of(layers, CPU).norm(x)
    assert found.dtype == BF16
    # Of the weight and of the result.
    near = torch.finfo(BF16).eps * expected.abs().max()
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=near.item())


def test_norms_in_single_precision_stay_so():
    layers, held = Layers(), FrozenCopy()
    nn.init.uniform_(layers.norm.weight, 0.5, 2)
    x = torch.randn(64, 8)
    with autocast():
        assert torch.equal(held.of(layers, CPU).norm(x), layers.norm(x))


def test_weights_that_learn_are_left_to_autocast():
    layers, held = Layers(), FrozenCopy()
    with autocast():
        assert held.of(layers, CPU) is not layers
        layers.linear.bias.requires_grad_(True)
        assert held.of(layers, CPU) is layers
        layers.linear.bias.requires_grad_(False)
        assert held.of(layers, CPU) is not layers


def test_other_weights_are_followed_in_the_same_memory():
    """A captured graph reads where the copy was when it was captured."""
    layers, other, held = Layers(), Layers(), FrozenCopy()
    with autocast():
        before = held.of(layers, CPU)
        layers.linear.weight.fill_(2.0)
        assert held.of(layers, CPU) is before
        assert (before.linear.weight == 2).all()
        layers.load_state_dict(other.state_dict())
        held.refresh(layers)
        assert torch.equal(before.linear.weight, other.linear.weight.to(BF16))


@pytest.mark.parametrize("change", ["assign", "half precision", "other autocast"])
def test_what_does_not_fit_is_made_anew(change):
    layers, other, held = Layers(), Layers(), FrozenCopy()
    x = torch.randn(2, 8)
    with autocast():
        held.of(layers, CPU)
    dtype = torch.float16 if change == "other autocast" else BF16
    if change == "assign":
        layers.load_state_dict(other.state_dict(), assign=True)
    elif change == "half precision":
        layers.double()
    with torch.autocast("cpu", dtype):
        stand_in = held.of(layers, CPU)
        assert stand_in.linear.weight.dtype == dtype
        assert torch.equal(stand_in.linear.weight, layers.linear.weight.to(dtype))
        if change != "half precision":
            assert torch.equal(stand_in.linear(x), layers.linear(x))


def test_it_is_made_in_inference_mode_and_serves_training():
    layers, held = Layers(), FrozenCopy()
    with torch.inference_mode(), autocast():
        held.of(layers, CPU)
    x = torch.randn(2, 8, requires_grad=True)
    with autocast():
        held.of(layers, CPU)(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_who_watches_a_module_watches_the_copy():
    layers, held, seen = Layers(), FrozenCopy(), []
    with autocast():
        stand_in = held.of(layers, CPU)
        handle = layers.linear.register_forward_hook(lambda *_: seen.append(1))
        stand_in(torch.zeros(1, 8))
        handle.remove()
        stand_in(torch.zeros(1, 8))
    assert seen == [1]


def test_a_tower_has_the_state_that_it_had():
    """In names, dtypes and values; copies and pickles leave the copy of the weights behind."""
    model = tower(prompt_length=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    with autocast():
        expected = model(images).dense
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[n], before[n]) and after[n].dtype == torch.float32 for n in after)
    assert len(list(model.modules())) == len(list(tower(prompt_length=2).modules()))
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        duplicate.visual.proj.zero_()
    with autocast():
        assert not duplicate(images).dense.any()
        assert torch.equal(model(images).dense, expected)
    stored = io.BytesIO()
    pickle.dump(model._frozen, stored)
    assert stored.tell() < 200


@pytest.mark.parametrize("by", ["loading", "writing", "moving"])
def test_a_tower_follows_its_weights(by):
    model, other, images = tower(), tower(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for context in (autocast(), torch.autocast("cpu", enabled=False)):
        with context:
            model(images)
    if by == "loading":
        model.load_state_dict(other.state_dict())
    elif by == "writing":
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs)
    else:
        model.load_state_dict(other.state_dict(), assign=True)
        model.double().float()
    for context in (autocast(), torch.autocast("cpu", enabled=False)):
        with context:
            assert torch.equal(model(images).dense, other(images).dense)


def test_positions_are_made_once_for_every_size(monkeypatch):
    model, sizes = tower(), []
    resampled = model._resampled
    monkeypatch.setattr(model, "_resampled", lambda grid: sizes.append(grid) or resampled(grid))
    for side in (64, 96, 64, 96):
        model(torch.randn(1, 3, side, side))
    assert len(sizes) == 2
    with torch.no_grad():
        model.visual.positional_embedding.mul_(2)
    model(torch.randn(1, 3, 64, 64))
    assert len(sizes) == 3
