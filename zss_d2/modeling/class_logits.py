"""From images and class names to logits, by text embeddings or by any other way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor


class ClassLogits:
    """What a method implements of it: `class_logits`, or the two that this is made of here.

    With these `zss export` can leave the text tower out of a graph.
    """

    beside_logits: ClassVar[tuple[str, ...]] = ()
    """Children that `embedded_logits` does without, such as a text tower."""

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K, h, w) of the named classes."""
        return self.embedded_logits(images, self.text_embeddings(class_names))

    def text_embeddings(self, class_names: Sequence[str]) -> Tensor:
        """Unit-norm embeddings of the classes (K, C), or of their words, see `words_per_class`."""
        raise NotImplementedError

    def embedded_logits(self, images: Tensor, text: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), embeddings (K, C) -> logits (B, K, h, w)."""
        raise NotImplementedError

    def words_per_class(self, class_names: Sequence[str]) -> tuple[int, ...]:
        """How many neighbouring rows of `text_embeddings` each class has; its best one counts."""
        return (1,) * len(class_names)
