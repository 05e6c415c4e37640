"""LDVC: language-driven visual consensus (arXiv 2403.08426)."""

from zss_d2.modeling.methods.ldvc.model import LDVC

__all__ = ["LDVC"]
