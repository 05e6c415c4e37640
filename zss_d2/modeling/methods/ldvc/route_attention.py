"""Route attention: tokens attend only to the windows that resemble their own.

Bi-level routing as in BiFormer (arXiv 2303.08810), which LDVC takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.attention import check_heads, split_heads


def to_windows(tokens: Tensor, windows: int) -> Tensor:
    """Split a grid into windows: (B, H, W, C) -> (B, P, t, C), P = windows ** 2.

    H and W are multiples of ``windows``; t = (H / windows) * (W / windows) tokens, row by row.
    """
    batch, height, width, channels = tokens.shape
    h, w = height // windows, width // windows
    tokens = tokens.view(batch, windows, h, windows, w, channels)
    return tokens.transpose(2, 3).reshape(batch, windows * windows, h * w, channels)


def from_windows(tokens: Tensor, windows: int, height: int, width: int) -> Tensor:
    """Inverse of `to_windows`: (B, P, t, C) -> (B, height, width, C)."""
    h, w = height // windows, width // windows
    tokens = tokens.view(tokens.shape[0], windows, windows, h, w, -1)
    return tokens.transpose(2, 3).reshape(tokens.shape[0], height, width, -1)


def route(queries: Tensor, keys: Tensor, real: Tensor, topk: int) -> Tensor:
    """Choose, for every window, the ``topk`` windows of highest affinity.

    The affinity is the dot product of window means; padded tokens count neither in the means nor,
    as whole windows, as a choice. Not differentiable.

    Args:
        queries, keys: (B, P, t, C).
        real: (P, t), False at padding.

    Returns:
        indices (B, P, topk) into the windows.
    """
    weight = real.to(queries.dtype)[..., None]  # (P, t, 1)
    count = weight.sum(dim=1).clamp(min=1)  # (P, 1)
    q_mean = (queries.detach() * weight).sum(dim=2) / count
    k_mean = (keys.detach() * weight).sum(dim=2) / count
    affinity = q_mean @ k_mean.transpose(1, 2)  # (B, P, P)
    affinity = affinity.masked_fill(~real.any(dim=1), float("-inf"))
    return affinity.topk(topk, dim=-1).indices


class RouteAttention(nn.Module):
    """Multi-head attention whose keys and values come from the best matching windows.

    A grid that the windows do not divide is padded at the right and bottom; padding is never
    attended to. A grid with fewer rows or columns than windows gets as many windows as it has.
    """

    one_size_per_graph = True
    """A traced graph holds for one size of the grid, see `forward`."""

    def __init__(self, dim: int, num_heads: int, windows: int, topk: int, lepe: int = 0):
        """
        Args:
            windows: per side of the grid.
            topk: windows that a window attends to.
            lepe: kernel size, odd, of a depth-wise convolution of the values that is added to the
                result, which lets position matter; 0 for none.

        Raises:
            ZssError: the kernel size is even, or the heads do not divide the channels.
        """
        super().__init__()
        check_heads(num_heads, dim)
        if lepe and lepe % 2 == 0:
            raise ZssError(f"MODEL.LDVC.ROUTE_LEPE is {lepe}; give 0 or an odd kernel size")
        self.num_heads = num_heads
        self.windows = windows
        self.topk = topk
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, lepe, padding=lepe // 2, groups=dim) if lepe else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend within the grid (B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, dim = tokens.shape
        # Makes torch.compile take the sizes as numbers: as symbols, the divisions and remainders
        # below keep it busy for many minutes.
        height, width = len(range(height)), len(range(width))
        windows = min(self.windows, height, width)
        pad_h, pad_w = -height % windows, -width % windows
        # Windows that hold nothing but padding (a narrow grid) cannot be chosen. Counted from the
        # sizes, not from a tensor, so that the module can be exported.
        rows, columns = (height + pad_h) // windows, (width + pad_w) // windows
        filled = ((height - 1) // rows + 1) * ((width - 1) // columns + 1)
        topk = min(self.topk, filled)
        qkv = self.qkv(tokens)
        values = qkv[..., -dim:]
        qkv = F.pad(qkv, (0, 0, 0, pad_w, 0, pad_h))
        real = F.pad(tokens.new_ones(height, width, dtype=torch.bool), (0, pad_w, 0, pad_h))
        real = to_windows(real[None, ..., None], windows)[0, ..., 0]  # (P, t)

        q, k, v = to_windows(qkv, windows).chunk(3, dim=-1)  # each (B, P, t, C)
        index = route(q, k, real, topk)
        item = torch.arange(batch, device=tokens.device)[:, None, None]
        k, v = k[item, index].flatten(2, 3), v[item, index].flatten(2, 3)  # (B, P, topk * t, C)
        # The fused kernels take no mask, so there is one only where there is padding.
        mask = real[index].flatten(2).flatten(0, 1)[:, None, None] if pad_h or pad_w else None

        out = F.scaled_dot_product_attention(
            *(split_heads(x.flatten(0, 1), self.num_heads) for x in (q, k, v)), attn_mask=mask
        )
        out = out.transpose(1, 2).reshape_as(q)
        out = from_windows(out, windows, height + pad_h, width + pad_w)[:, :height, :width]
        if self.lepe is not None:
            out = out + self.lepe(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(out)
