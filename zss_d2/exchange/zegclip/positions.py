"""CLIP's position embedding out of one that was enlarged."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Shrunk(NamedTuple):
    """A position embedding of a smaller grid."""

    positions: Tensor  # (1 + g * g, C), single precision
    error: float  # largest difference when it is enlarged again, as a share of the largest value


def shrink(positions: Tensor, side: int) -> Shrunk:
    """Undo a bilinear enlargement of a square grid, by least squares in double precision.

    Enlarging is X = E P E^T for every channel, with E (G, g) that of one side; P = E+ X (E+)^T.

    Args:
        positions: (1 + G * G, C), the first of the class token; G >= g.
        side: g.
    """
    cls, grid = positions[:1].double(), positions[1:].double()
    larger = round(len(grid) ** 0.5)
    grid = grid.unflatten(0, (larger, larger))  # (G, G, C)
    enlarge = F.interpolate(
        torch.eye(side, dtype=torch.float64)[None], size=larger, mode="linear", align_corners=False
    )[0].T  # (G, g)
    inverse = torch.linalg.pinv(enlarge)
    small = torch.einsum("hG,wK,GKc->hwc", inverse, inverse, grid)
    again = torch.einsum("Gh,Kw,hwc->GKc", enlarge, enlarge, small)
    error = ((again - grid).abs().max() / grid.abs().max().clamp(min=1e-30)).item()
    return Shrunk(torch.cat([cls, small.flatten(0, 1)]).float(), error)
