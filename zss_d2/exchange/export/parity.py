"""Whether a file gives what the model gives: the same scores, the same best class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zss_d2.errors import ZssError
from zss_d2.exchange.export.graph import (
    CONFIDENCE,
    EMBEDDINGS,
    IMAGE,
    LABELS,
    LOGITS,
    SCORES,
    SegmentationGraph,
)
from zss_d2.modeling import ZeroShotSegmentor
from zss_d2.modeling.inference import InferenceProtocol, segment
from zss_d2.modeling.inference.resize import upsample

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
"""Arrays by name of the inputs -> arrays by name of the outputs."""

# Largest difference of scores, and least share of the pixels with the same best class.
SCORES_WITHIN, AGREEMENT = 1e-4, 0.999


@dataclass(frozen=True)
class Parity:
    """How near a file comes to the model.

    Attributes:
        difference: largest of all scores that the file gives.
        agreement: share of the pixels whose best class is the same, 0..1.
        images, pixels: that were looked at.
    """

    difference: float
    agreement: float
    images: int
    pixels: int

    def __str__(self) -> str:
        return (
            f"scores within {self.difference:.1e}, best class equal on {100 * self.agreement:.3f} "
            f"% of {self.pixels} pixels in {self.images} images"
        )

    def require(self, name: str) -> None:
        """Raise `ZssError` unless it is as near as rounding alone lets it be."""
        if self.difference <= SCORES_WITHIN and self.agreement >= AGREEMENT:
            return
        raise ZssError(
            f"{name} does not give what the model gives: {self}; it was not written, as scores "
            f"must be within {SCORES_WITHIN:g} and the best class equal on "
            f"{100 * AGREEMENT:g} % of the pixels"
        )


def reference(
    model: ZeroShotSegmentor, pixels: Tensor, names: Sequence[str], seen_bias: float
) -> Tensor:
    """Scores (K, H, W) of an image (3, H, W), by the path of every test, in one plain pass.

    Args:
        pixels: RGB in 0..255.
    """
    protocol = InferenceProtocol(seen_bias=seen_bias, max_scores=1 << 40)
    size = (pixels.shape[1], pixels.shape[2])
    with torch.inference_mode():
        return segment(model, model.normalise(pixels), names, size, protocol)


def compare(
    run: Run,
    graph: SegmentationGraph,
    model: ZeroShotSegmentor,
    names: Sequence[str],
    images: Sequence[np.ndarray],
    seen_bias: float = 0.0,
) -> Parity:
    """Hold a file against the model on images (H, W, 3) uint8, RGB.

    Each goes through the file in one batch with its mirror image, and through the model alone.

    Args:
        run: the file.
        graph: that it was made of.
        seen_bias: that is in the file.
    """
    text = model.text_embeddings(names).numpy(force=True) if graph.settings.embeddings else None
    total = Parity(0.0, 0.0, 0, 0)
    same = 0
    for image in images:
        pair = np.stack([image, image[:, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32)
        inputs = {IMAGE: padded(pair, graph)}
        if text is not None:
            inputs[EMBEDDINGS] = text
        outputs = run(inputs)
        for index, pixels in enumerate(pair):
            expected = reference(model, torch.from_numpy(pixels), names, seen_bias)
            own = {
                name: torch.from_numpy(value[index : index + 1]) for name, value in outputs.items()
            }
            labels, difference = _held_against(own, expected, graph)
            same += int((labels == expected.argmax(dim=0)).sum())
            total = replace(
                total,
                # A NaN is to be seen.
                difference=float(np.maximum(total.difference, difference)),
                images=total.images + 1,
                pixels=total.pixels + labels.numel(),
            )
    return replace(total, agreement=same / max(1, total.pixels))


def padded(images: np.ndarray, graph: SegmentationGraph) -> np.ndarray:
    """Images (B, 3, H, W) as the file takes them: with the mean colour at the right and bottom."""
    if graph.settings.size is not None:
        return images
    height, width = images.shape[2:]
    target = graph.model.padded_size((height, width))
    result = np.empty((*images.shape[:2], *target), np.float32)
    result[:] = graph.mean.numpy()
    result[..., :height, :width] = images
    return result


def _held_against(
    outputs: Mapping[str, Tensor], expected: Tensor, graph: SegmentationGraph
) -> tuple[Tensor, float]:
    """Labels (H, W) of one image, and the largest difference of its scores to (K, H, W)."""
    height, width = expected.shape[1:]
    if LABELS in outputs:
        labels = outputs[LABELS][0, :height, :width].long()
        best = outputs[CONFIDENCE][0, :height, :width]
        return labels, (best - expected.amax(dim=0)).abs().max().item()
    if LOGITS in outputs:
        large = upsample(outputs[LOGITS], graph.model.padded_size((height, width)))
        scores = graph.model.activate(large)[0]
    else:
        scores = outputs[SCORES][0]
    scores = scores[:, :height, :width]
    return scores.argmax(dim=0), (scores - expected).abs().max().item()
