"""How test images are turned into scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

BACKGROUND = "background"
"""The class of what shows none of the others, where a data set has one."""

# Inputs of the network at once where TEST.BATCH leaves it to the device. A GPU waits for its
# launches otherwise; on a CPU only small networks gain (docs/evaluation.md), and one by one gives
# the same bits whatever comes in together.
_BATCH = {"cuda": 16}


@dataclass(frozen=True)
class InferenceProtocol:
    """How scores are made from an image; every field changes results, but for the last three.

    Args:
        slide_crop, slide_stride: sliding windows, px of the resized image; None: whole image.
        flip: average with the scores of the mirrored image.
        scales: factors on the resized image, whose scores are averaged.
        antialias: when the image is scaled by them.
        seen_bias: subtracted from the scores of the classes whose labels were trained on.
        background_below: pixels whose best score, less the bias, is lower belong to the class
            `BACKGROUND`, if it is among them.
        batch: inputs that go through the network at once, see `batch_on`; 0: by the device.
        max_scores: numbers in a score map (K, H, W) above which only its labels are made.
        cuda_graphs: replay the network's launches, see `GraphedLogits`.
    """

    slide_crop: int | None = None
    slide_stride: int | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    antialias: bool = True
    seen_bias: float = 0.0
    background_below: float = 0.0
    batch: int = 0
    max_scores: int = 1 << 26
    cuda_graphs: bool = False

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
            background_below=cfg.TEST.BACKGROUND_BELOW,
            batch=cfg.TEST.BATCH,
            max_scores=cfg.TEST.MAX_SCORES_MIB * 2**20 // 4,
            cuda_graphs=cfg.TEST.CUDA_GRAPHS,
        )

    def batch_on(self, device: torch.device | str) -> int:
        """Images or windows, mirrored ones counted, that go through the network at once there."""
        return self.batch or _BATCH.get(torch.device(device).type, 1)
