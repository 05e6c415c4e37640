"""Overrides of the tiny configuration that make each method, for tests that go over all of them."""

from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.test_ldvc import TEXT_PROMPTS
from tests.modeling.test_maskclip import OVERRIDES as MASKCLIP
from tests.modeling.test_maskclip import VARIANTS

METHODS = {
    "LDVC": ("MODEL.META_ARCHITECTURE", "LDVC"),
    "LDVC-text-prompts": TEXT_PROMPTS,
    "ZegCLIP": ("MODEL.META_ARCHITECTURE", "ZegCLIP", "MODEL.ZEGCLIP.DROPOUT", 0.0),
    "MaskCLIP": MASKCLIP,
    "CLIPZSS": TINY,
}
TRAINED = tuple(name for name in METHODS if name != "MaskCLIP")
"""MaskCLIP: it compares dense tokens with text embeddings, and trains nothing."""
WITH_VARIANTS = METHODS | VARIANTS
"""The variants are MaskCLIP with other dense tokens."""
