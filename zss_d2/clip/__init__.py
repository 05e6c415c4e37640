"""CLIP towers, driven through open_clip's modules."""

from zss_d2.clip.identity import ClipIdentity
from zss_d2.clip.image import ImageEncoder, ImageFeatures
from zss_d2.clip.text import TextEncoder
from zss_d2.clip.towers import ClipTowers, build_clip_towers
from zss_d2.clip.wording import PromptSettings

__all__ = [
    "ClipIdentity",
    "ClipTowers",
    "ImageEncoder",
    "ImageFeatures",
    "PromptSettings",
    "TextEncoder",
    "build_clip_towers",
]
