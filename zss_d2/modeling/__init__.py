"""Meta-architectures and what they are made of; importing registers all methods.

Also those of other installed packages, which name them as entry points of the group
``zss_d2.methods`` (docs/adding_a_method.md).
"""

import logging
import warnings
from importlib.metadata import entry_points

with warnings.catch_warnings():
    # Libraries below script functions on import, which warns; nothing a user could change.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
    from zss_d2.modeling import methods
    from zss_d2.modeling.segmentor import ZeroShotSegmentor

__all__ = ["ZeroShotSegmentor", "methods"]

for _method in entry_points(group="zss_d2.methods"):
    try:
        _method.load()
    except Exception as _error:  # a fault of another package must not stop the methods of this one
        logging.getLogger(__name__).warning(
            "The method %s of the package %s cannot be loaded (%s: %s); update or remove that one",
            *(_method.name, _method.dist.name if _method.dist else "?"),
            *(type(_error).__name__, _error),
        )
