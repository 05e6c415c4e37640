"""Parameter groups and learning rate schedules."""

from detectron2.solver.build import LRMultiplier as LRMultiplier
from detectron2.solver.build import WarmupParamScheduler as WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params as get_default_optimizer_params
