"""Name -> object look-ups."""

from fvcore.common.registry import Registry as Registry
