"""What tokens and class embeddings are at every stage of a method, for analysis alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Stage(NamedTuple):
    """Tokens of images and the embeddings of classes at one place of a network.

    Args:
        name: of the place, such as "layer 1".
        tokens: (B, C, h, w).
        classes: (B, K, C), what the tokens are compared with there, in the space of the tokens.
        queries: (B, K, C), the class embeddings as the network holds them behind that place; None
            where it leaves them as they were, or nothing reads what it makes of them.
    """

    name: str
    tokens: Tensor
    classes: Tensor
    queries: Tensor | None = None


class Trace(NamedTuple):
    """All stages of a forward pass.

    Args:
        text: (K, C), unit norm, CLIP's embeddings of the class names.
        stages: in their order; the first one is what enters the decoder, or all there is of a
            method without one.
        padded: (height, width) that the tokens cover, px.
    """

    text: Tensor
    stages: list[Stage]
    padded: tuple[int, int]


def dense_stage(name: str, tokens: Tensor, text: Tensor) -> Stage:
    """The only stage of a method without decoder: tokens (B, C, h, w), embeddings (K, C)."""
    return Stage(name, tokens, text.expand(len(tokens), -1, -1))
