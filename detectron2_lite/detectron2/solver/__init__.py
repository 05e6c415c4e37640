"""Optimizers and learning rate schedules."""

from detectron2.solver.build import LRMultiplier as LRMultiplier
from detectron2.solver.build import WarmupParamScheduler as WarmupParamScheduler
from detectron2.solver.build import build_lr_scheduler as build_lr_scheduler
from detectron2.solver.build import build_optimizer as build_optimizer
from detectron2.solver.build import get_default_optimizer_params as get_default_optimizer_params
