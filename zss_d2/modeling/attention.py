"""Cross-attention whose scores and weights can be looked at."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.precision import in_single_precision


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, N, C) over memory (B, M, C)."""

    def __init__(
        self, dim: int, num_heads: int, dropout: float = 0.0, identity_values: bool = False
    ):
        """
        Args:
            dropout: on the attention weights.
            identity_values: the result is a mean of the memory itself, by the weights averaged over
                heads, so it stays in the memory's space.

        Raises:
            ZssError: ``num_heads`` does not divide ``dim``.
        """
        super().__init__()
        check_heads(num_heads, dim)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.dropout = dropout
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v, self.out = (
            (None, None) if identity_values else (nn.Linear(dim, dim), nn.Linear(dim, dim))
        )

    def scores(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Scaled Q K^T before the softmax, averaged over heads (B, N, M), in single precision."""
        # The mean over heads of per-head products is one product over all channels.
        q = self.q(queries) * (self.scale / self.num_heads)
        return dot_products(q, self.k(memory))

    def weights(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Attention weights, averaged over heads (B, N, M)."""
        q, k = split_heads(self.q(queries), self.num_heads), self._keys(memory)
        return (self.scale * q @ k.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """The update of the queries (B, N, C)."""
        if self.v is None:
            weights = F.dropout(self.weights(queries, memory), self.dropout, self.training)
            return weights @ memory
        attended = F.scaled_dot_product_attention(
            split_heads(self.q(queries), self.num_heads),
            self._keys(memory),
            split_heads(self.v(memory), self.num_heads),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _keys(self, memory: Tensor) -> Tensor:
        return split_heads(self.k(memory), self.num_heads)


@in_single_precision
def dot_products(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries (B, N, C) and keys (B, M, C) -> (B, N, M): masks, so not in half precision."""
    return queries @ keys.transpose(1, 2)


def check_heads(num_heads: int, dim: int) -> None:
    """Raise `ZssError` unless ``num_heads`` divides the channels ``dim``."""
    if dim % num_heads:
        divisors = [n for n in range(1, dim + 1) if dim % n == 0 and n <= 32]
        raise ZssError(
            f"NUM_HEADS is {num_heads}, which does not divide the {dim} channels; use one of "
            f"{', '.join(map(str, divisors))}"
        )


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
