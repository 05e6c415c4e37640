"""Settings of the pretraining."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on.

    Attributes:
        scenes: drawn once, sampled again with new captions and mirrored.
        lr: peak of a cosine schedule; AdamW, weight_decay on matrices only.
        text_warmup: steps in which the text tower alone learns to keep the words of a caption.
        word_weight: of the loss that asks each embedding for the words of the caption, as CatLIP
            (arXiv 2404.15653) does; it finds the patterns long before the contrastive loss would.
        patch_drop: share of patches dropped, up to the last ``unmasked`` share of the steps.
    """

    seed: int = 0
    steps: int = 1100
    batch: int = 64
    scenes: int = 12_000
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 100
    text_warmup: int = 200
    word_weight: float = 10.0
    patch_drop: float = 0.75
    unmasked: float = 0.03
