"""A small stand-in for Detectron2: see README.md of this distribution for what it covers."""

from detectron2 import _slice

__version__ = "0.0.1+lite"

_slice.install()
