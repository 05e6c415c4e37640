"""CLIP-ZSS: any encoder becomes a zero-shot segmenter with CLIP as its teacher (2310.02296)."""

from zss_d2.modeling.methods.clip_zss.model import CLIPZSS

__all__ = ["CLIPZSS"]
