"""What is exported: a network with its normalisation, and on demand what makes labels of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling import ZeroShotSegmentor
from zss_d2.modeling.inference.resize import upsample
from zss_d2.modeling.methods.clip_zss.students.folding import folded
from zss_d2.modeling.methods.maskclip.model import best_of_groups

# Names of what goes in and comes out.
IMAGE, EMBEDDINGS = "image", "embeddings"
LOGITS, SCORES, LABELS, CONFIDENCE = "logits", "scores", "labels", "confidence"


@dataclass(frozen=True)
class GraphSettings:
    """What the graph does.

    Args:
        size: height and width of its images, px; None: any multiple of the model's.
        resize: enlarge the logits to the size of the image and make scores of them.
        argmax: give the best class of every pixel and its score instead of all scores.
        embeddings: take class embeddings as an input; else they are constants.

    Raises:
        ZssError: labels without scores.
    """

    size: tuple[int, int] | None = None
    resize: bool = True
    argmax: bool = False
    embeddings: bool = False

    def __post_init__(self) -> None:
        if self.argmax and not self.resize:
            raise ZssError(
                "--argmax inside needs --resize inside: labels cannot be enlarged as logits can"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (IMAGE, EMBEDDINGS) if self.embeddings else (IMAGE,)

    @property
    def outputs(self) -> tuple[str, ...]:
        if not self.resize:
            return (LOGITS,)
        return (LABELS, CONFIDENCE) if self.argmax else (SCORES,)


class SegmentationGraph(nn.Module):
    """Images in RGB, 0..255, to logits, scores or labels, without a text tower.

    Batch norms are folded into convolutions where the method's own tests do that.
    """

    def __init__(
        self,
        segmentor: ZeroShotSegmentor,
        settings: GraphSettings,
        text: Tensor | None = None,
        words_per_class: Sequence[int] = (),
        bias: Tensor | None = None,
    ):
        """
        Args:
            segmentor: in evaluation mode; a copy of what `embedded_logits` needs is kept.
            text: embeddings (W, C) that become constants; None: they are an input.
            words_per_class: of the rows of ``text``.
            bias: subtracted from the scores of each class (K,); None: nothing.
        """
        super().__init__()
        beside = [getattr(segmentor, name) for name in segmentor.beside_logits]
        left_out = {id(x): None for x in (*beside, segmentor.self_training) if x is not None}
        self.model = folded(copy.deepcopy(segmentor, left_out))
        self.settings = settings
        self.words_per_class = tuple(words_per_class)
        self.register_buffer("text", None if text is None else text.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.view(-1, 1, 1))
        # As numbers that broadcast over batches.
        self.register_buffer("mean", segmentor.pixel_mean[None].clone())
        self.register_buffer("std", segmentor.pixel_std[None].clone())

    def forward(self, image: Tensor, embeddings: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Args:
            image: (B, 3, H, W) float32, RGB in 0..255; of ``settings.size``, or with sides that are
                multiples of the model's ``size_divisibility``.
            embeddings: (K, C) float32, unit norm, where they are an input.

        Returns:
            of `GraphSettings.outputs`: logits (B, K, h, w); or scores (B, K, H, W) in 0..1, less
            the seen bias; or labels (B, H, W), uint8 or for more than 256 classes int32, and their
            scores (B, H, W).
        """
        height, width = image.shape[-2:]
        images = (image - self.mean) / self.std
        if self.settings.size is not None:
            padded = self.model.padded_size((height, width))
            images = F.pad(images, (0, padded[1] - width, 0, padded[0] - height))
        logits = self.model.embedded_logits(images, self.text if embeddings is None else embeddings)
        if self.words_per_class and set(self.words_per_class) != {1}:
            logits = best_of_groups(logits, self.words_per_class)
        if not self.settings.resize:
            return (logits.float(),)
        scores = self.model.activate(upsample(logits, images.shape[-2:]))
        if self.settings.size is not None:
            scores = scores[..., :height, :width]
        if self.bias is not None:
            scores = scores - self.bias
        if not self.settings.argmax:
            return (scores,)
        best, labels = scores.max(dim=1)
        # With classes as an input there is no telling how many they will be.
        few = self.text is not None and len(self.text) <= 256
        return labels.to(torch.uint8 if few else torch.int32), best
