"""How test images are turned into scores."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True)
class InferenceProtocol:
    """How scores are made from an image; every field changes results, but for the last two.

    Args:
        slide_crop, slide_stride: sliding windows, px of the resized image; None: whole image.
        flip: average with the scores of the mirrored image.
        scales: factors on the resized image, whose scores are averaged.
        antialias: when the image is scaled by them.
        seen_bias: subtracted from the scores of the classes whose labels were trained on.
        slide_batch: windows that go through the network at once.
        max_scores: numbers in a score map (K, H, W) above which only its labels are made.
    """

    slide_crop: int | None = None
    slide_stride: int | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    antialias: bool = True
    seen_bias: float = 0.0
    slide_batch: int = 1
    max_scores: int = 1 << 26

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InferenceProtocol:
        """What ``cfg.TEST`` says."""
        sliding = cfg.TEST.SLIDE.ENABLED
        return cls(
            slide_crop=cfg.TEST.SLIDE.CROP if sliding else None,
            slide_stride=cfg.TEST.SLIDE.STRIDE if sliding else None,
            flip=cfg.TEST.FLIP,
            scales=tuple(cfg.TEST.SCALES),
            antialias=cfg.INPUT.ANTIALIAS,
            seen_bias=cfg.TEST.SEEN_BIAS,
            slide_batch=cfg.TEST.SLIDE.BATCH,
            max_scores=cfg.TEST.MAX_SCORES_MIB * 2**20 // 4,
        )
