"""Bilinear upsampling and its adjoint as matrix products, of all rows or of some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# A pixel costs as many operations as the coarse map has rows. Where those are more than so many,
# the fine map is made by bands of so many rows, each of which sees few of the coarse ones.
_BAND_ROWS = 64


class Upsampling:
    """``F.interpolate(x, size, mode="bilinear")`` of maps (N, h, w) -> (N, H, W), R x C^T.

    Its adjoint, which takes gradients back, is R^T g C. Torch's own is a loop over pixels on a CPU,
    four to eight times as slow, and adds by atomics on CUDA. To be used in `single_precision`.

    Attributes:
        same: both sizes are equal, so nothing is to be done.
    """

    def __init__(self, coarse: Sequence[int], fine: Sequence[int], like: Tensor):
        """
        Args:
            coarse, fine: (h, w) and (H, W).
            like: has the device and the precision, that of the maps.
        """
        self.same = tuple(coarse) == tuple(fine)
        self.coarse, self.fine = tuple(coarse), tuple(fine)
        if not self.same:
            self._rows = _weights(coarse[0], fine[0], like)  # R, (H, h)
            self._columns = _weights(coarse[1], fine[1], like)  # C, (W, w)

    def enlarge(self, maps: Tensor, rows: slice = slice(None)) -> Tensor:
        """Maps (N, h, w) -> ``rows`` of the enlarged ones (N, rows, W), a new tensor."""
        if self.same:
            return maps[:, rows].clone()
        wide = maps @ self._columns.T  # (N, h, W)
        parts = [
            torch.bmm(self._rows[band, span].expand(len(maps), -1, -1), wide[:, span])
            for band, span in self._bands(rows)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def add_adjoint(self, gradients: Tensor, into: Tensor, rows: slice = slice(None)) -> None:
        """Add to ``into`` (N, h, w) what gradients (N, rows, W) at ``rows`` are for coarse maps."""
        if self.same:
            into[:, rows] += gradients
            return
        first = rows.indices(self.fine[0])[0]
        for band, span in self._bands(rows):
            part = gradients[:, band.start - first : band.stop - first]
            into[:, span] += (self._rows[band, span].T @ part) @ self._columns

    def _bands(self, rows: slice) -> Iterator[tuple[slice, slice]]:
        """Cut rows of the fine map; each with the rows of the coarse map that it sees."""
        start, stop, _ = rows.indices(self.fine[0])
        height = self.coarse[0]
        step = _BAND_ROWS if height > _BAND_ROWS else stop - start
        for first in range(start, stop, step):
            last = min(first + step, stop) - 1
            # One row more on each side, for the rounding of positions in single precision.
            low, high = ((y + 0.5) * height / self.fine[0] - 0.5 for y in (first, last))
            yield slice(first, last + 1), slice(max(0, int(low) - 1), min(height, int(high) + 3))


def _weights(coarse: int, fine: int, like: Tensor) -> Tensor:
    """(fine, coarse): torch's own interpolation of every unit vector."""
    units = torch.eye(coarse, dtype=like.dtype, device=like.device)
    return F.interpolate(units[None], size=fine, mode="linear")[0].T.contiguous()
