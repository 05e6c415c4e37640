"""Meta-architectures and what they are made of; importing registers all methods."""

import warnings

with warnings.catch_warnings():
    # Libraries below script functions on import, which warns; nothing a user could change.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
    from zss_d2.modeling import methods
    from zss_d2.modeling.segmentor import ZeroShotSegmentor

__all__ = ["ZeroShotSegmentor", "methods"]
