"""Data: benchmark specs, their registration with Detectron2, and the mapper."""

from __future__ import annotations

from zss_d2.data.registry import register_all

register_all()
