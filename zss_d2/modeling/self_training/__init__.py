"""Self-training in the transductive setting: pseudo labels of pixels that have none."""

from zss_d2.modeling.self_training.part import SelfTraining
from zss_d2.modeling.self_training.settings import SelfTrainingSettings

__all__ = ["SelfTraining", "SelfTrainingSettings"]
