"""Training, from command-line arguments to checkpoints."""

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.config_file import load_config, parse_arguments
from zss_d2.engine.processes.launching import argument_parser, run
from zss_d2.engine.processes.logs import set_up
from zss_d2.engine.trainer import ZeroShotTrainer, evaluate

__all__ = [
    "ZeroShotCheckpointer",
    "ZeroShotTrainer",
    "argument_parser",
    "evaluate",
    "load_config",
    "parse_arguments",
    "run",
    "set_up",
]
