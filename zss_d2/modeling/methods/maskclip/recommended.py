"""The training-free method that labels images where no weights are given.

That is what the tables of docs/training_free.md recommend: by the published ones, NACLIP with
ResCLIP's cross-correlation part; by ours, on the mini CLIP, the second path of CLIP Surgery.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from detectron2.config import CfgNode

from zss_d2.clip.towers import blocks_of

DEFAULT_CONFIG = Path(__file__).with_name("recommended.yaml")
# Of the towers whose blocks ResCLIP names.
_BLOCKS = 12


def on_its_tower(cfg: CfgNode, given: Collection[str]) -> CfgNode:
    """`DEFAULT_CONFIG` with settings of the user: no ResCLIP on a tower whose blocks it does not
    know, unless somebody asks for it.

    Args:
        given: keys that the user has set.

    Raises:
        ZssError: open_clip does not know the CLIP.
    """
    asked = any(key.startswith("MODEL.CLIP.DENSE.RESCLIP_") for key in given)
    if asked or blocks_of(cfg.MODEL.CLIP.NAME) == _BLOCKS:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.CLIP.DENSE.RESCLIP_WEIGHT = 0.0
    cfg.freeze()
    return cfg


def without_training(cfg: CfgNode) -> CfgNode:
    """The config with the recommended method in the place of its own.

    CLIP, sentences, data sets, sizes, windows and device stay. ResCLIP's blocks are known for
    towers of twelve; others have NACLIP alone.

    Raises:
        ZssError: open_clip does not know the CLIP.
    """
    cfg = cfg.clone()
    cfg.defrost()
    clip = cfg.MODEL.CLIP
    cfg.MODEL.META_ARCHITECTURE = "MaskCLIP"
    cfg.MODEL.VISUAL_PROMPTS.LENGTH = cfg.MODEL.TEXT_PROMPTS.LENGTH = 0
    cfg.MODEL.VISUAL_PROMPTS.NORM = False
    if clip.NAME == "mini":
        clip.DENSE_TOKENS, clip.DENSE.SURGERY_DEPTH = "clip_surgery", 4
    else:
        known = blocks_of(clip.NAME) == _BLOCKS
        clip.DENSE_TOKENS, clip.DENSE.RESCLIP_WEIGHT = "naclip", 0.4 if known else 0.0
        clip.DENSE.RESCLIP_BLOCKS = [5, 6, 7, 8]
    cfg.freeze()
    return cfg


def name_of(cfg: CfgNode) -> str:
    """What a line says of the recommended method, as settings of the user have left it."""
    clip = cfg.MODEL.CLIP
    names = {"naclip": "NACLIP", "clip_surgery": "CLIP Surgery"}
    tokens = names.get(clip.DENSE_TOKENS, f"the dense tokens {clip.DENSE_TOKENS}")
    with_part = clip.DENSE_TOKENS == "naclip" and clip.DENSE.RESCLIP_WEIGHT
    part = " with ResCLIP's cross-correlation part" if with_part else ""
    return f"{tokens}{part} on CLIP {clip.NAME}, without training (docs/training_free.md)"
