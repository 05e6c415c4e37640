"""Against torch's own interpolation and its gradient."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.losses.upsampling import Upsampling

SIZES = [
    ((3, 4), (48, 64)),
    ((5, 7), (33, 20)),  # no whole number of times
    ((4, 4), (4, 4)),
    ((9, 6), (4, 5)),  # smaller
    ((1, 1), (5, 3)),
    ((70, 3), (281, 4)),  # by bands
    ((130, 2), (97, 2)),
]


@pytest.mark.parametrize("rows", [slice(None), slice(1, 4)])
@pytest.mark.parametrize(("coarse", "fine"), SIZES)
def test_it_is_bilinear_interpolation_and_its_gradient(coarse, fine, rows):
    maps = torch.randn(2, *coarse, dtype=torch.float64, requires_grad=True)
    whole = F.interpolate(maps[None], fine, mode="bilinear")[0][:, rows]
    weights = torch.randn_like(whole)
    (expected,) = torch.autograd.grad((whole * weights).sum(), maps)

    upsampling = Upsampling(coarse, fine, maps)
    found = upsampling.enlarge(maps.detach(), rows)
    torch.testing.assert_close(found, whole.detach())
    assert found.data_ptr() != maps.data_ptr()
    into = torch.ones_like(maps, requires_grad=False)
    upsampling.add_adjoint(weights, into, rows)
    torch.testing.assert_close(into, 1 + expected)
