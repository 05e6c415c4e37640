"""Settings of the decoder: the keys of ``MODEL.LDVC``, which ``defaults.yaml`` explains."""

from __future__ import annotations

from dataclasses import dataclass, fields

from detectron2.config import CfgNode

from zss_d2.errors import ZssError

STEPS = ("route", "cross", "ffn")
_CHOICES = {"norm": ("pre", "post"), "mask_head": ("cosine", "attention")}


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """What a `LocalConsensusDecoder`, its layers and its mask head are built from.

    Raises:
        ZssError: an unknown step, norm or mask head, or a step twice.
    """

    num_layers: int
    order: tuple[str, ...]
    norm: str
    num_heads: int
    ffn_dim: int
    dropout: float
    route_windows: int
    route_topk: int
    route_lepe: int
    mask_head: str
    init_temperature: float
    init_bias: float

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ZssError(
                    f"MODEL.LDVC.{name.upper()} is {getattr(self, name)!r}; use one of "
                    f"{', '.join(choices)}"
                )
        if set(self.order) - set(STEPS) or len(set(self.order)) < len(self.order):
            raise ZssError(
                f"MODEL.LDVC.ORDER is {list(self.order)}; give each of {', '.join(STEPS)} once or "
                "never"
            )

    @classmethod
    def from_config(cls, node: CfgNode) -> DecoderSettings:
        """From ``cfg.MODEL.LDVC``."""
        values = {field.name: node[field.name.upper()] for field in fields(cls)}
        return cls(**values | {"order": tuple(node.ORDER)})

    @property
    def has_heads(self) -> bool:
        """Whether any attention is built, so that ``num_heads`` matters."""
        attends = self.num_layers > 0 and {"route", "cross"} & set(self.order)
        return bool(attends) or self.mask_head == "attention"
