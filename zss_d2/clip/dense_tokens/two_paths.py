"""Dense tokens from a second path beside the last blocks, which takes only their attention.

In each of them the tokens of the first path give queries, keys and values. The second path starts
with the tokens that enter the first of these blocks and adds up what an attention of a token group
to itself makes of the values; it has no MLP. CLS stays that of the first path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zss_d2.clip.dense_tokens.attention import Heads, attend, heads_of, project_out
from zss_d2.clip.dense_tokens.registry import DENSE_TOKENS, LastBlock, with_settings
from zss_d2.errors import ZssError

_GEM_DEPTH = "MODEL.CLIP.DENSE.GEM_DEPTH"
_SURGERY_DEPTH = "MODEL.CLIP.DENSE.SURGERY_DEPTH"


@dataclass(frozen=True)
class SecondPath:
    """x <- x + O(attention), block by block.

    Attributes:
        depth: of the last blocks that have the second path.
        key: of the config that says so, for errors.
        attention: `Heads` and the tokens (B, N, C) that they were made from -> (B, heads, N, d).
    """

    depth: int
    key: str
    attention: Callable[[Heads, Tensor], Tensor]

    def seen_blocks(self, layers: int) -> range:
        """The last ``depth`` of them; raises ZssError if there are fewer."""
        if self.depth > layers:
            raise ZssError(
                f"{self.key} is {self.depth}, but the tower has {layers} blocks; use {layers} or "
                "less"
            )
        return range(layers - self.depth, layers)

    def __call__(self, last: LastBlock) -> Tensor:
        path = last.patches(last.seen[0].inputs)
        for block, inputs in last.seen:
            entering = block.ln_1(inputs)
            update = self.attention(heads_of(block, entering), entering)
            path = path + block.ls_1(last.patches(project_out(block, update)))
        return path


def values_to_values(heads: Heads, tokens: Tensor) -> Tensor:
    """softmax(v v^T / sqrt(d)) v (CLIP Surgery, arXiv 2304.05653)."""
    return attend(heads.v, heads.v, heads.v)


@dataclass(frozen=True)
class GroupedAttention:
    """GEM's attention (arXiv 2312.00878): the mean over z of q, k and v of
    softmax(t z z^T) v, once z has been drawn to its neighbours.

    Attributes:
        steps: of normalise, z <- softmax(t z z^T) z, each of which groups the tokens more.
    """

    steps: int

    def __call__(self, heads: Heads, tokens: Tensor) -> Tensor:
        """t is the mean norm of an image's tokens (B, N, C), over sqrt(d)."""
        # `attend` divides by sqrt(d).
        norm = tokens.float().norm(dim=2).mean(dim=1).view(-1, 1, 1, 1).to(tokens.dtype)
        found = []
        for z in heads:
            for _ in range(self.steps):
                z = F.normalize(z, dim=-1)
                z = attend(norm * z, z, z)
            z = F.normalize(z, dim=-1)
            found.append(attend(norm * z, z, heads.v))
        return torch.stack(found).mean(dim=0)


@DENSE_TOKENS.register()
@with_settings(_SURGERY_DEPTH)
def clip_surgery(depth: int) -> SecondPath:
    """CLIP Surgery's architecture; its feature surgery does not change which class is best."""
    return SecondPath(depth, _SURGERY_DEPTH, values_to_values)


@DENSE_TOKENS.register()
@with_settings(_GEM_DEPTH, "MODEL.CLIP.DENSE.GEM_STEPS")
def gem(depth: int, steps: int) -> SecondPath:
    """GEM, the grounding everything module."""
    return SecondPath(depth, _GEM_DEPTH, GroupedAttention(steps))
