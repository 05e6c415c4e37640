"""A segmentor as a plain module of tensors, for what traces modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class FixedClasses(nn.Module):
    """A segmentor asked for the same classes again and again: what is exported or counted.

    Put the segmentor in evaluation mode and run the module once first: text embeddings that do not
    depend on the image are cached then, and a graph taken afterwards holds no text tower.
    """

    def __init__(self, model: nn.Module, class_names: Sequence[str]):
        """
        Args:
            model: a `ZeroShotSegmentor`.
            class_names: K of them.
        """
        super().__init__()
        self.model = model
        self.class_names = tuple(class_names)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of ``size_divisibility`` -> (B, K, h, w).

        The logits as the networks give them: not enlarged, not activated.
        """
        return self.model.class_logits(images, self.class_names)
