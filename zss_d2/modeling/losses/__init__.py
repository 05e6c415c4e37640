"""Training losses; ``MODEL.LOSS.NAME`` names one of `LOSSES`."""

from zss_d2.modeling.losses.criteria import (
    LOSSES,
    NELLoss,
    SoftmaxLoss,
    build_criterion,
    enlarged,
)

__all__ = ["LOSSES", "NELLoss", "SoftmaxLoss", "build_criterion", "enlarged"]
