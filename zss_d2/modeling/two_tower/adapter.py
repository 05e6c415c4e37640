"""Text adapters: class embeddings T (K, C) and a CLS token V_g (B, C) -> T_new (B, K, C).

``MODEL.TEXT_ADAPTER.NAME`` names one of `TEXT_ADAPTERS`.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from zss_d2.config.registered import find

TEXT_ADAPTERS = Registry("TEXT_ADAPTERS")
"""Config and C -> a module as `RelationDescriptor` is one."""


class RelationDescriptor(nn.Module):
    """Class embeddings that are conditioned on the image.

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
        text = text.expand(global_feature.shape[0], -1, -1)  # (B, K, C)
        image = nn.functional.normalize(global_feature, dim=-1)[:, None]  # (B, 1, C)
        return self.linear(torch.cat([text * image, text], dim=-1))


class NoAdapter(nn.Module):
    """T_new = T for every image."""

    def forward(self, text: Tensor, global_feature: Tensor) -> Tensor:
        """Arguments and result as of `RelationDescriptor`."""
        return text.expand(global_feature.shape[0], -1, -1)


@TEXT_ADAPTERS.register()
def descriptor(cfg: CfgNode, dim: int) -> RelationDescriptor:
    """ZegCLIP's and LDVC's."""
    return RelationDescriptor(dim, cfg.MODEL.TEXT_ADAPTER.IDENTITY_INIT)


@TEXT_ADAPTERS.register()
def none(cfg: CfgNode, dim: int) -> NoAdapter:
    """Class embeddings as CLIP has them."""
    return NoAdapter()


def build_text_adapter(cfg: CfgNode, dim: int) -> nn.Module:
    """The adapter of ``MODEL.TEXT_ADAPTER``.

    Args:
        dim: C.

    Raises:
        ZssError: no such adapter is registered.
    """
    name = cfg.MODEL.TEXT_ADAPTER.NAME
    return find(TEXT_ADAPTERS, name, "MODEL.TEXT_ADAPTER.NAME")(cfg, dim)
