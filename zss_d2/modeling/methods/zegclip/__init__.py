"""ZegCLIP, the baseline with text queries (arXiv 2212.03588)."""

from zss_d2.modeling.methods.zegclip.model import ZegCLIP

__all__ = ["ZegCLIP"]
