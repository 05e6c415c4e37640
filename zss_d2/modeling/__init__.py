"""Meta-architectures and what they are made of; importing registers all methods.

Also those of other installed packages, which name them as entry points of the group
``zss_d2.methods`` (docs/adding_a_method.md).
"""

import warnings
from importlib.metadata import entry_points

with warnings.catch_warnings():
    # Libraries below script functions on import, which warns; nothing a user could change.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
    from zss_d2.modeling import methods
    from zss_d2.modeling.segmentor import ZeroShotSegmentor

__all__ = ["ZeroShotSegmentor", "methods"]

for _method in entry_points(group="zss_d2.methods"):
    _method.load()
