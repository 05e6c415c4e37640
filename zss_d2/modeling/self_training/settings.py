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
    start: int = 0
    weight: float = 1.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SelfTrainingSettings | None:
        """Of a whole config; None where ``ZERO_SHOT.SETTING`` is not transductive."""
        if cfg.ZERO_SHOT.SETTING != "transductive":
            return None
        node = cfg.ZERO_SHOT.SELF_TRAINING
        return cls(**{name: node[name.upper()] for name in cls.__dataclass_fields__})

    @property
    def leaky(self) -> bool:
        """Whether pseudo labels stand where the ground truth of unseen classes does."""
        return self.pixels == LEAKY

    def origin(self) -> dict[str, Any]:
        """What a checkpoint remembers of them."""
        return {"pixels": self.pixels, "source": self.source}
