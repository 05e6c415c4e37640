"""LDVC: the shared tests, its parts, and route attention against a slow reference."""

import pytest
import torch
from torch.nn import functional as F

from tests.modeling.method_tester import MethodTester
from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.methods.ldvc.route_attention import (
    RouteAttention,
    from_windows,
    route,
    to_windows,
)
from zss_d2.modeling.relation_descriptor import RelationDescriptor


class TestLDVC(MethodTester):
    overrides = ("MODEL.META_ARCHITECTURE", "LDVC")
    trained_prefixes = {"image_encoder", "descriptor", "decoder"}


def decoder() -> LocalConsensusDecoder:
    return LocalConsensusDecoder(
        dim=8,
        num_layers=2,
        num_heads=2,
        ffn_dim=16,
        dropout=0.0,
        route_windows=2,
        route_topk=2,
        init_temperature=0.5,
        init_bias=-1.0,
    )


def test_windows_by_hand():
    grid = torch.arange(16).view(1, 4, 4, 1)
    windows = to_windows(grid, 2)
    assert windows[0, :, :, 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    assert torch.equal(from_windows(windows, 2, 4, 4), grid)


def test_windows_of_an_oblong_grid_round_trip():
    grid = torch.randn(2, 6, 9, 5)
    assert torch.equal(from_windows(to_windows(grid, 3), 3, 6, 9), grid)


def test_routing_by_hand():
    """Window means are one-hot, so each window prefers the one whose key looks like its query."""
    keys = torch.eye(3)[None, :, None]  # (1, 3 windows, 1 token, 3)
    queries = torch.tensor([[0, 1, 0.5], [0.5, 0, 1], [0, 0, 1.0]])[None, :, None]
    real = torch.ones(3, 1, dtype=torch.bool)
    assert route(queries, keys, real, 2)[0, :2].tolist() == [[1, 2], [2, 0]]
    assert route(queries, keys, real, 1)[0].tolist() == [[1], [2], [2]]


def test_padding_neither_moves_means_nor_is_chosen():
    keys = torch.tensor([[[1.0], [9.0]], [[2.0], [2.0]], [[7.0], [7.0]]])[None]
    real = torch.tensor([[True, False], [True, True], [False, False]])
    chosen = route(torch.ones_like(keys), keys, real, 2)
    assert chosen[0, :2].tolist() == [[1, 0]] * 2  # means 1 and 2; the third window is all padding


def slow_route_attention(module: RouteAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Each query token looks up its window, the chosen windows and their tokens, one by one."""
    batch, height, width, dim = tokens.shape
    side = min(module.windows, height, width)
    h, w = -(-height // side), -(-width // side)
    q, k, v = module.qkv(tokens).chunk(3, dim=-1)
    members = {
        (i, j): [
            (y, x)
            for y in range(i * h, min((i + 1) * h, height))
            for x in range(j * w, min((j + 1) * w, width))
        ]
        for i in range(side)
        for j in range(side)
    }
    members = {key: cells for key, cells in members.items() if cells}
    out = torch.zeros_like(tokens)
    for b in range(batch):
        mean = lambda t, cells: torch.stack([t[b, y, x] for y, x in cells]).mean(0)  # noqa: B023, E731
        for cells in members.values():
            affinity = {key: mean(q, cells) @ mean(k, other) for key, other in members.items()}
            chosen = sorted(affinity, key=affinity.get, reverse=True)[: module.topk]
            source = [cell for key in chosen for cell in members[key]]
            keys = torch.stack([k[b, y, x] for y, x in source]).unflatten(1, (module.num_heads, -1))
            values = torch.stack([v[b, y, x] for y, x in source]).unflatten(
                1, (module.num_heads, -1)
            )
            for y, x in cells:
                query = q[b, y, x].view(module.num_heads, -1)
                scores = torch.einsum("hd,nhd->hn", query, keys) / query.shape[1] ** 0.5
                out[b, y, x] = torch.einsum("hn,nhd->hd", scores.softmax(1), values).flatten()
    return module.proj(out)


@pytest.mark.parametrize("grid", [(4, 4), (4, 6), (5, 7), (3, 2), (1, 5), (9, 4)])
@pytest.mark.parametrize("topk", [1, 3, 16])
@torch.no_grad()
def test_route_attention_against_the_slow_reference(grid, topk):
    module = RouteAttention(dim=8, num_heads=2, windows=4, topk=topk)
    tokens = torch.randn(2, *grid, 8)
    torch.testing.assert_close(
        module(tokens), slow_route_attention(module, tokens), atol=1e-5, rtol=1e-4
    )


def test_route_attention_over_all_windows_is_plain_attention():
    module = RouteAttention(dim=8, num_heads=2, windows=2, topk=4)
    tokens = torch.randn(1, 4, 4, 8)
    q, k, v = (
        x.flatten(1, 2).unflatten(-1, (2, -1)).transpose(1, 2)
        for x in module.qkv(tokens).chunk(3, dim=-1)
    )
    plain = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 4, 4, 8)
    torch.testing.assert_close(module(tokens), module.proj(plain))


def test_descriptor_starts_as_the_identity_and_follows_its_formula():
    descriptor = RelationDescriptor(6)
    text, image = F.normalize(torch.randn(3, 6), dim=-1), torch.randn(2, 6)
    torch.testing.assert_close(descriptor(text, image), text.expand(2, 3, 6))
    torch.nn.init.normal_(descriptor.linear.weight)
    g = image[1] / image[1].norm()
    expected = descriptor.linear(torch.cat([text[2] * g, text[2]]))
    torch.testing.assert_close(descriptor(text, image)[1, 2], expected)


def test_logits_are_cosines_over_temperature_plus_bias():
    model = decoder().eval()
    model.layers = torch.nn.ModuleList()  # only the mask head is left
    dense, classes = torch.randn(1, 8, 2, 3), torch.randn(1, 4, 8)
    logits = model(dense, classes)
    token = F.layer_norm(dense[0, :, 1, 2], (8,))
    expected = F.cosine_similarity(token, classes[0, 3], dim=0) / 0.5 - 1.0
    assert logits.shape == (1, 4, 2, 3)
    torch.testing.assert_close(logits[0, 3, 1, 2], expected)


def test_decoder_treats_classes_as_a_set():
    """Another order of the classes reorders the logits and changes nothing else."""
    model, dense, classes = decoder().eval(), torch.randn(2, 8, 4, 4), torch.randn(2, 5, 8)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(dense, classes[:, order]), model(dense, classes)[:, order])
