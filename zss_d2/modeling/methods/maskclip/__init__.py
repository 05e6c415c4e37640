"""MaskCLIP-style inference: CLIP as it is, no training (arXiv 2112.01071)."""

from zss_d2.modeling.methods.maskclip.model import MaskCLIP

__all__ = ["MaskCLIP"]
