"""Settings of self-training: ``ZERO_SHOT.SELF_TRAINING``, which config/defaults.py explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from zss_d2.modeling.identity import LEAKY

LEAK_IN_WORDS = "leaky: pseudo labels at the ground-truth places of unseen classes"


@dataclass(frozen=True, kw_only=True)
class SelfTrainingSettings:
    """Which pixels get pseudo labels, of what, from when on; names as those of the keys."""

    pixels: str = "unlabelled"
    source: str = "online"
    candidates: str = "unseen"
    threshold: float = 0.0
    quantile: float = 0.0
    agreement: tuple[float, ...] = ()
    start: int = 0
    rounds: int = 0
    ema_momentum: float = 0.999
    weight: float = 1.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SelfTrainingSettings | None:
        """Of a whole config; None where ``ZERO_SHOT.SETTING`` is not transductive."""
        if cfg.ZERO_SHOT.SETTING != "transductive":
            return None
        node = cfg.ZERO_SHOT.SELF_TRAINING
        values = {name: node[name.upper()] for name in cls.__dataclass_fields__}
        return cls(**values | {"agreement": tuple(node.AGREEMENT)})

    @property
    def leaky(self) -> bool:
        """Whether pseudo labels stand where the ground truth of unseen classes does."""
        return self.pixels == LEAKY

    @property
    def views(self) -> tuple[tuple[float, bool], ...]:
        """Scale, and whether mirrored, of what scores are made of; the first one counts most."""
        if not self.agreement:
            return ((1.0, False),)
        return tuple(
            (float(scale), mirrored) for scale in self.agreement for mirrored in (False, True)
        )

    def origin(self) -> dict[str, Any]:
        """What a checkpoint remembers of them."""
        return {"pixels": self.pixels, "source": self.source}
