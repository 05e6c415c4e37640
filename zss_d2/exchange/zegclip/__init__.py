"""ZegCLIP's released checkpoints (github.com/ZiqinZhou66/ZegCLIP), as models of this project."""

from zss_d2.exchange.zegclip.convert import convert

__all__ = ["convert"]
