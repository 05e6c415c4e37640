"""Which dense tokens there are, what one of them gets to see, and how a config chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from zss_d2.config.registered import find
from zss_d2.config.values import value_of
from zss_d2.errors import ZssError

KEY = "MODEL.CLIP.DENSE_TOKENS"
DENSE_TOKENS = Registry("DENSE_TOKENS")
"""`LastBlock` -> patch tokens (B, h * w, C), before the tower's last LayerNorm and projection.

An entry is such a function, or one `with_settings` that makes it.
"""


class SeenBlock(NamedTuple):
    """A residual attention block of open_clip's ViT, and the tokens that entered it."""

    block: nn.Module
    inputs: Tensor  # (B, 1 + P + h * w, C): CLS, prompts, patches row by row


class LastBlock(NamedTuple):
    """The last residual attention block of open_clip's ViT, and the tokens on both sides of it."""

    block: nn.Module
    inputs: Tensor  # (B, 1 + P + h * w, C): CLS, prompts, patches row by row
    outputs: Tensor  # (B, 1 + P + h * w, C)
    grid: tuple[int, int]  # h, w
    seen: tuple[SeenBlock, ...] = ()
    """The blocks that the mode's ``seen_blocks`` names, in that order."""

    def patches(self, tokens: Tensor) -> Tensor:
        """The patch tokens (B, h * w, C) among all."""
        return tokens[:, -self.grid[0] * self.grid[1] :]


Mode = Callable[[LastBlock], Tensor]
"""Where it has a method ``seen_blocks(layers: int)``, that returns the blocks, counted from 0 in a
tower of so many, that it wants to see in `LastBlock.seen`; it raises ZssError if there are none."""


def with_settings(*keys: str) -> Callable[[Callable[..., Mode]], Callable[..., Mode]]:
    """Mark an entry of `DENSE_TOKENS` that is called with the values of config keys for its mode.

    Args:
        keys: dotted, in the order of the arguments.
    """

    def mark(make: Callable[..., Mode]) -> Callable[..., Mode]:
        make.settings = keys
        return make

    return mark


@dataclass(frozen=True)
class DenseTokens:
    """Dense tokens that were chosen.

    Attributes:
        name: that of the registry.
        mode: `LastBlock` -> patch tokens (B, h * w, C).
        settings: config key -> value, of those that ``mode`` was made with.
    """

    name: str
    mode: Mode
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> DenseTokens:
        """Those of ``MODEL.CLIP.DENSE_TOKENS``, with the keys that it reads.

        Raises:
            ZssError: nothing is registered under the name.
        """
        name = cfg.MODEL.CLIP.DENSE_TOKENS
        keys = getattr(find(DENSE_TOKENS, name, KEY), "settings", ())
        return cls.of(name, {key: _plain(value_of(cfg, key)) for key in keys})

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any] | None = None) -> DenseTokens:
        """Those of a name, with the value of every key that it reads.

        Raises:
            ZssError: nothing is registered under the name, or a key has no value.
        """
        entry, settings = find(DENSE_TOKENS, name, KEY), dict(settings or {})
        keys = getattr(entry, "settings", None)
        if keys is None:
            return cls(name, entry)
        if missing := [key for key in keys if key not in settings]:
            raise ZssError(f"{KEY} {name!r} reads {missing[0]}, which has no value; give one")
        return cls(name, entry(*(settings[key] for key in keys)), settings)

    def seen_blocks(self, layers: int) -> tuple[int, ...]:
        """Blocks, counted from 0, of a tower of so many ``layers`` that the mode looks at.

        Raises:
            ZssError: the tower has no such blocks.
        """
        ask = getattr(self.mode, "seen_blocks", None)
        return () if ask is None else tuple(ask(layers))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
