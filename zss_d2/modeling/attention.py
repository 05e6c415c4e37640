"""Cross-attention whose scores and weights can be looked at."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.precision import in_single_precision


class AttentionScores(nn.Module):
    """How much each of the queries (B, N, C) attends to each of the keys (B, M, C)."""

    def __init__(self, dim: int, num_heads: int):
        """
        Raises:
            ZssError: ``num_heads`` does not divide ``dim``.
        """
        super().__init__()
        check_heads(num_heads, dim)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def scores(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Scaled Q K^T before the softmax, averaged over heads (B, N, M), in single precision."""
        # The mean over heads of per-head products is one product over all channels.
        q = self.q(queries) * (self.scale / self.num_heads)
        return dot_products(q, self.k(memory))

    def as_memory_sees(self, queries: Tensor) -> Tensor:
        """The vectors (B, N, C) whose dot products with the memory are the scores.

        W_k^T (W_q x + b_q): of queries x, the scores on memory m are m . W_k^T (W_q x + b_q), but
        for the factor of all scores and the offset b_k . (W_q x + b_q) of each query.
        """
        return self.q(queries) @ self.k.weight

    def as_queries_see(self, memory: Tensor) -> Tensor:
        """`as_memory_sees` with the roles exchanged: W_q^T (W_k m + b_k), (B, M, C)."""
        return self.k(memory) @ self.q.weight

    def weights(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Attention weights, averaged over heads (B, N, M)."""
        q, k = (split_heads(x, self.num_heads) for x in (self.q(queries), self.k(memory)))
        return (self.scale * q @ k.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)


class CrossAttention(AttentionScores):
    """Multi-head attention of queries (B, N, C) over memory (B, M, C)."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        """
        Args:
            dropout: on the attention weights.

        Raises:
            ZssError: ``num_heads`` does not divide ``dim``.
        """
        super().__init__(dim, num_heads)
        self.dropout = dropout
        self.v, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, queries: Tensor, memory: Tensor, present: Tensor | None = None) -> Tensor:
        """The update of the queries (B, N, C).

        Args:
            present: (B, M) bool, which rows of the memory there are, at least one; None: all.
        """
        attended = F.scaled_dot_product_attention(
            *(
                split_heads(x, self.num_heads)
                for x in (self.q(queries), self.k(memory), self.v(memory))
            ),
            attn_mask=None if present is None else present[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(attended.transpose(1, 2).flatten(2))


@in_single_precision
def dot_products(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries (B, N, C) and keys (B, M, C) -> (B, N, M): masks, so not in half precision."""
    return queries @ keys.transpose(1, 2)


def check_heads(num_heads: int, dim: int, key: str = "num_heads") -> None:
    """Raise `ZssError` unless ``num_heads`` divides the channels ``dim``.

    Args:
        key: of the config that the number is from.
    """
    if dim % num_heads:
        fitting = [n for n in range(1, min(dim, 32) + 1) if dim % n == 0]
        raise ZssError(
            f"{key} is {num_heads}, which does not divide the width, {dim} channels; use one of "
            f"{', '.join(map(str, fitting))}"
        )


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
