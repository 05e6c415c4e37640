"""Text adapter: class embeddings that know which image they are asked about."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelationDescriptor(nn.Module):
    """T_new = Linear(concat[T * V_g, T]) (ZegCLIP, arXiv 2212.03588, section 3.4; used by LDVC).

    The linear map starts as the identity on T: before training, T_new = T.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(2 * dim, dim)
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
