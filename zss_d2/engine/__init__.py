"""Training, from command-line arguments to checkpoints."""

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.run import load_config, run
from zss_d2.engine.trainer import ZeroShotTrainer, evaluate

__all__ = ["ZeroShotCheckpointer", "ZeroShotTrainer", "evaluate", "load_config", "run"]
