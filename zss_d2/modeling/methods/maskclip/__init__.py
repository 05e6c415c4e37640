"""Training-free inference: CLIP as it is, MaskCLIP (arXiv 2112.01071) and what follows it."""

from zss_d2.modeling.methods.maskclip.model import MaskCLIP

__all__ = ["MaskCLIP"]
