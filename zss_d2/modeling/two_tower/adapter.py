"""Text adapters: class embeddings T (K, C) and a CLS token V_g (B, C) -> T_new (B, K, C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelationDescriptor(nn.Module):
    """The class embeddings get to know which image they are asked about.

    T_new = Linear(concat[T * V_g, T]) (ZegCLIP, arXiv 2212.03588, section 3.4; used by LDVC).

    With ``identity_init`` the linear map starts as the identity on T: before training, T_new = T.
    Otherwise it starts as any linear layer of torch does.
    """

    def __init__(self, dim: int, identity_init: bool = True):
        super().__init__()
        self.linear = nn.Linear(2 * dim, dim)
        if not identity_init:
            return
        with torch.no_grad():
            self.linear.weight.copy_(torch.cat([torch.zeros(dim, dim), torch.eye(dim)], dim=1))
            self.linear.bias.zero_()

    def forward(self, text: Tensor, global_feature: Tensor) -> Tensor:
        """Fuse class embeddings (K, C) with one global image feature per image.

        Args:
            text: unit-norm class embeddings (K, C).
            global_feature: CLS tokens (B, C), normalised here.

        Returns:
            (B, K, C).
        """
        text = text.expand(len(global_feature), -1, -1)  # (B, K, C)
        image = nn.functional.normalize(global_feature, dim=-1)[:, None]  # (B, 1, C)
        return self.linear(torch.cat([text * image, text], dim=-1))


class NoAdapter(nn.Module):
    """T_new = T for every image."""

    def forward(self, text: Tensor, global_feature: Tensor) -> Tensor:
        """Arguments and result as of `RelationDescriptor`."""
        return text.expand(len(global_feature), -1, -1)
