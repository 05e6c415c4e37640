"""The training-free method that labels images where no weights are given.

By the tables of docs/training_free.md it is NACLIP with ResCLIP's cross-correlation part.
"""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from zss_d2.clip.towers import blocks_of

DEFAULT_CONFIG = Path(__file__).with_name("recommended.yaml")
# l and the blocks, counted from 0, by the number of blocks of the tower: the paper's of ViT-B/16,
# and what the mini world's dev views chose (docs/training_free.md). Others have NACLIP alone.
_RESCLIP = {12: (0.4, [5, 6, 7, 8]), 4: (0.4, [1, 2])}


def without_training(cfg: CfgNode) -> CfgNode:
    """The config with the recommended method in the place of its own.

    CLIP, sentences, data sets, sizes, windows and device stay.

    Raises:
        ZssError: open_clip does not know the CLIP.
    """
    cfg = cfg.clone()
    cfg.defrost()
    clip = cfg.MODEL.CLIP
    cfg.MODEL.META_ARCHITECTURE = "MaskCLIP"
    cfg.MODEL.VISUAL_PROMPTS.LENGTH = cfg.MODEL.TEXT_PROMPTS.LENGTH = 0
    clip.DENSE_TOKENS = "naclip"
    clip.DENSE.RESCLIP_WEIGHT, blocks = _RESCLIP.get(blocks_of(clip.NAME), (0.0, []))
    if blocks:
        clip.DENSE.RESCLIP_BLOCKS = blocks
    cfg.freeze()
    return cfg


def name_of(cfg: CfgNode) -> str:
    """What a line says of the recommended method, as settings of the user have left it."""
    clip = cfg.MODEL.CLIP
    tokens = "NACLIP" if clip.DENSE_TOKENS == "naclip" else f"the dense tokens {clip.DENSE_TOKENS}"
    part = " with ResCLIP's cross-correlation part" if clip.DENSE.RESCLIP_WEIGHT else ""
    return f"{tokens}{part} on CLIP {clip.NAME}, without training (docs/training_free.md)"
