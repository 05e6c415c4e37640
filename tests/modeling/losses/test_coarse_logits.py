"""Losses of coarse logits, made in parts, against those of whole enlarged maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.modeling.losses import reference
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss, chunks, enlarged
from zss_d2.modeling.losses.cross_entropy import cross_entropy_sum
from zss_d2.modeling.losses.nel import nel_terms

IGNORE = 255
MAP_BYTES = 37 * 50 * 4
# Bytes of a chunk: a part of one image's classes, one image or several, all.
CHUNKS = [3 * MAP_BYTES, 12 * MAP_BYTES, 1 << 30]


def example(
    classes: int, coarse: tuple[int, int] = (3, 4), fine: tuple[int, int] = (37, 50), batch: int = 3
) -> tuple[Tensor, Tensor]:
    """Logits (B, K, h, w), targets (B, H, W) in blobs, some ignored; one image has none."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(batch, classes, *coarse, generator=generator) - 1
    blobs = torch.randint(0, classes, (batch, 1, 3, 3), generator=generator)
    targets = F.interpolate(blobs.float(), fine, mode="nearest")[:, 0].long()
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = IGNORE
    if batch > 2:
        targets[1] = IGNORE
    return logits, targets


def whole_nel(logits: Tensor, targets: Tensor, *args: object) -> reference.NELTerms:
    return reference.nel_terms(enlarged(logits, targets).to(logits), targets, *args)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize(
    ("classes", "coarse", "fine"),
    [
        (1, (3, 4), (37, 50)),
        (5, (3, 4), (48, 64)),
        (5, (12, 16), (12, 16)),
        (7, (40, 30), (37, 20)),
        (171, (3, 4), (37, 50)),
    ],
)
def test_nel_is_that_of_whole_maps(monkeypatch, classes, coarse, fine, negatives, chunk):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", chunk)
    logits, targets = example(classes, coarse, fine)
    logits.requires_grad_()
    counted = torch.ones_like(targets, dtype=torch.bool) if negatives else targets != IGNORE
    args = (logits, targets, counted, 0.25, 2.0)
    got, expected = nel_terms(*args), whole_nel(*args)
    assert got.num_masks == expected.num_masks
    for name in ("focal", "dice"):
        found, wanted = getattr(got, name), getattr(expected, name)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        found, wanted = gradient(found, logits), gradient(wanted, logits)
        assert (found - wanted).norm() <= 1e-5 * wanted.norm() + 1e-9


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (1.0, 0.0), (0.0, 1.5), (0.5, 1.0)])
def test_nel_in_double_precision_with_other_settings(monkeypatch, alpha, gamma):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 3 * MAP_BYTES)
    logits, targets = example(5)
    logits = logits.double().requires_grad_()
    # Some labelled pixels take no part either.
    counted = (targets != IGNORE) & (torch.arange(50) % 7 > 0)
    up = F.interpolate(logits, targets.shape[1:], mode="bilinear")
    got = nel_terms(logits, targets, counted, alpha, gamma)
    expected = reference.nel_terms(up, targets, counted, alpha, gamma)
    total, wanted = (100 * x.focal + 3 * x.dice for x in (got, expected))
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(gradient(total, logits), gradient(wanted, logits))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("classes", [1, 5, 171])
def test_cross_entropy_is_that_of_whole_maps(monkeypatch, classes, chunk):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", chunk)
    logits, targets = example(classes)
    logits.requires_grad_()
    got = cross_entropy_sum(logits, targets, IGNORE)
    expected = F.cross_entropy(
        enlarged(logits, targets), targets, ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    found, wanted = gradient(got, logits), gradient(expected, logits)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize(("chunk", "size"), [(1, (5, 7)), (1 << 20, (5, 7)), (1 << 20, (2, 3))])
def test_gradients_in_float64(monkeypatch, chunk, size):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", chunk)
    logits, targets = example(3, (2, 3), size, batch=2)
    logits = logits.double().requires_grad_()
    counted = targets != IGNORE
    torch.autograd.gradcheck(lambda x: nel_terms(x, targets, counted, 0.25, 2.0)[:2], logits)
    torch.autograd.gradcheck(lambda x: cross_entropy_sum(x, targets, IGNORE), logits)


def test_logits_may_lie_in_memory_in_any_order(monkeypatch):
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 3 * MAP_BYTES)
    logits, targets = example(5)
    gradients = []
    for x in (logits, logits.to(memory_format=torch.channels_last)):
        x = x.clone().requires_grad_()
        terms = nel_terms(x, targets, targets != IGNORE, 0.25, 2.0)
        loss = terms.focal + terms.dice + cross_entropy_sum(x, targets, IGNORE)
        gradients.append(gradient(loss, x))
    torch.testing.assert_close(*gradients)


def test_an_autocast_around_a_loss_changes_nothing():
    logits, targets = example(5)
    results = []
    for enabled in (False, True):
        x = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = nel_terms(x, targets, targets != IGNORE, 0.25, 2.0)
            loss = terms.focal + terms.dice + cross_entropy_sum(x, targets, IGNORE)
        results.append((loss.detach(), gradient(loss, x)))
    assert all(map(torch.equal, *results))


def test_a_target_that_is_no_class_is_an_error_of_the_softmax():
    logits, targets = example(5)
    targets[0, 0, 0] = 5
    with pytest.raises(IndexError):
        cross_entropy_sum(logits, targets, IGNORE)


class Watch(TorchDispatchMode):
    """The largest tensor that any operation returns, elements, and the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        result = func(*args, **kwargs or {})
        self.names.add(func.overloadpacket.__name__)
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


def criteria() -> list[torch.nn.Module]:
    nel = {"focal_weight": 1.0, "focal_alpha": 0.25, "focal_gamma": 2.0, "dice_weight": 1.0}
    return [
        NELLoss(**nel, ignore_label=IGNORE),
        NELLoss(**nel, ignore_label=IGNORE, ignored_are_negatives=True),
        SoftmaxLoss(weight=1.0, ignore_label=IGNORE),
    ]


@pytest.mark.parametrize("criterion", criteria(), ids=["nel", "negatives", "softmax"])
def test_no_map_of_all_classes_is_ever_made_and_nothing_waits_for_a_value(monkeypatch, criterion):
    """What reads a value, or depends on one for its shape, makes a CPU wait for its GPU."""
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", 12 * MAP_BYTES)
    logits, targets = example(40)
    logits.requires_grad_()
    saved = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x)
    with hooks, Watch() as watch:
        loss = sum(criterion(logits, targets).values())
        loss.backward()
    int64_targets = targets.numel() * 8
    assert watch.largest <= max(12 * MAP_BYTES, int64_targets) < 40 * MAP_BYTES
    assert max(x.numel() for x in saved) <= 2 * logits.numel()
    assert not watch.names & {"_local_scalar_dense", "nonzero", "masked_select", "unique"}
