"""Training loops, hooks and start-up."""

# ruff: noqa: F401  (re-exports)

from detectron2.engine.defaults import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
)
from detectron2.engine.launch import DEFAULT_TIMEOUT, launch
from detectron2.engine.train_loop import HookBase, SimpleTrainer, TrainerBase
