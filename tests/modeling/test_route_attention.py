"""Route attention: windows and routing by hand, and the whole against a slow reference."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.ldvc.route_attention import (
    RouteAttention,
    from_windows,
    route,
    to_windows,
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
                if module.lepe is not None:
                    out[b, y, x] += slow_lepe(module.lepe, v[b], y, x)
    return module.proj(out)


def slow_lepe(conv: torch.nn.Conv2d, values: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """The depth-wise convolution at one token, neighbour by neighbour."""
    out, reach = conv.bias.clone(), conv.kernel_size[0] // 2
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            if 0 <= y + i < values.shape[0] and 0 <= x + j < values.shape[1]:
                out += conv.weight[:, 0, i + reach, j + reach] * values[y + i, x + j]
    return out


@pytest.mark.parametrize("grid", [(4, 4), (4, 6), (5, 7), (3, 2), (1, 5), (9, 4)])
@pytest.mark.parametrize(
    ("windows", "topk", "heads", "lepe"),
    [(4, 1, 2, 0), (4, 3, 2, 3), (4, 16, 4, 0), (2, 2, 1, 5), (3, 4, 8, 0)],
)
@torch.no_grad()
def test_route_attention_against_the_slow_reference(grid, windows, topk, heads, lepe):
    module = RouteAttention(dim=8, num_heads=heads, windows=windows, topk=topk, lepe=lepe)
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


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_gradients_in_double_precision(grid):
    """The choice of windows is a constant for autograd, so finite differences must agree."""
    module = RouteAttention(dim=4, num_heads=2, windows=2, topk=2, lepe=3).double()
    tokens = torch.randn(1, *grid, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (tokens,))


def test_even_kernels_are_refused():
    with pytest.raises(ZssError, match="ROUTE_LEPE is 4; give 0 or an odd"):
        RouteAttention(dim=8, num_heads=2, windows=2, topk=1, lepe=4)
