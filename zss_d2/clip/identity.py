"""Which CLIP a tower belongs to, so that embeddings of two CLIPs are never mixed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn


@dataclass(frozen=True)
class ClipIdentity:
    """A CLIP by name, weights and activation; embeddings of two that differ do not compare.

    Attributes:
        name: ``MODEL.CLIP.NAME``.
        pretrained: ``MODEL.CLIP.PRETRAINED`` as configured: a tag, a path or "".
        quick_gelu: the activation of both towers: QuickGELU, or GELU.
    """

    name: str
    pretrained: str
    quick_gelu: bool
    _fingerprint: Callable[[], str] = field(repr=False, compare=False)

    def text_fingerprint(self) -> str:
        """SHA-256 (hex) of the text tower's weights now, without language prompts.

        The same on every device, and for weights held in single precision or in bfloat16.
        """
        return self._fingerprint()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, shapes and values, these rounded to bfloat16."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.int16).numpy())
    return digest.hexdigest()


def has_quick_gelu(tower: nn.Module) -> bool:
    """Whether a tower of open_clip computes with QuickGELU, x * sigmoid(1.702 x)."""
    return any(isinstance(module, QuickGELU) for module in tower.modules())
