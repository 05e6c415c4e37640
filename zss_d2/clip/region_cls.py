"""A CLS token for every region of an image out of one pass of the image tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zss_d2.clip.dense_tokens.attention import attend, heads_of, project_out, with_residual


def region_cls_tokens(
    blocks: Sequence[nn.Module], entered: Sequence[Tensor], masks: Tensor
) -> Tensor:
    """Copies of CLS that attend to the patches of their region alone in the last blocks.

    Each begins as the CLS that enters the first of these blocks, sees itself and the patches of its
    region, and is seen by nobody; the patches stay those of the whole image.

    Args:
        blocks: the last residual attention blocks of open_clip's ViT.
        entered: tokens (B, 1 + N, C) that entered each of them, CLS first.
        masks: (B, R, N) bool, patches of every region; of an empty one CLS sees only itself.

    Returns:
        (B, R, C), before the tower's last LayerNorm and projection.

    Raises:
        ZssError: another attention than torch's.
    """
    number = masks.shape[1]
    itself = torch.eye(number, dtype=torch.bool, device=masks.device).expand(len(masks), -1, -1)
    visible = torch.cat([masks, itself], dim=2)[:, None]  # (B, 1, R, N + R)
    cls = entered[0][:, :1].expand(-1, number, -1)
    for block, tokens in zip(blocks, entered, strict=True):
        heads = heads_of(block, block.ln_1(torch.cat([tokens[:, 1:], cls], dim=1)))
        # 0 is added to the scores of what is visible.
        bias = torch.zeros(visible.shape, device=cls.device).masked_fill_(~visible, -torch.inf)
        update = attend(heads.q[:, :, -number:], heads.k, heads.v, bias)
        cls = with_residual(block, cls, project_out(block, update))
    return cls
