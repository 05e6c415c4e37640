"""Meta-architectures and what they are made of; importing registers all methods."""

from zss_d2.modeling import methods
from zss_d2.modeling.segmentor import ZeroShotSegmentor

__all__ = ["ZeroShotSegmentor", "methods"]
