"""Training, from command-line arguments to checkpoints."""

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.config_file import load_config
from zss_d2.engine.launching import run
from zss_d2.engine.trainer import ZeroShotTrainer, evaluate

__all__ = ["ZeroShotCheckpointer", "ZeroShotTrainer", "evaluate", "load_config", "run"]
