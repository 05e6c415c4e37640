"""Generalised zero-shot semantic segmentation on Detectron2.

Importing the package registers its data sets and meta-architectures.
"""

import warnings

with warnings.catch_warnings():
    # Libraries below script functions on import, which warns; nothing a user could mend.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
    from zss_d2 import data, modeling

__version__ = "0.1.0"

__all__ = ["data", "modeling"]
