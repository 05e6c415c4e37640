"""The classifier of a student: text embeddings that come with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import open_clip
import torch
from torch import Tensor, nn

from zss_d2.clip import TextEncoder
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.teacher import Unsaved


class TextClassifier(nn.Module):
    """Unit-norm embeddings of the training data set's classes, and of any other names on demand."""

    def __init__(
        self,
        class_names: Sequence[str],
        dim: int,
        text_encoder: Callable[[], TextEncoder],
        templates: Sequence[str],
        synonyms: Mapping[str, Sequence[str]],
    ):
        """
        Args:
            class_names: of the training data set.
            dim: C, CLIP's joint dimension.
            text_encoder: builds the text tower, or hands out one that exists; called when first
                needed.
            templates, synonyms: see `TextEncoder.classifier`.
        """
        super().__init__()
        self.class_names = tuple(class_names)
        self.templates = tuple(templates)
        self.synonyms = dict(synonyms)
        self._text_encoder = text_encoder
        self.encoder: Unsaved[TextEncoder] | None = None
        # NaN until they are embedded or come from a checkpoint.
        self.register_buffer("embeddings", torch.full((len(class_names), dim), torch.nan))

    def embed_own_classes(self) -> None:
        """Fill the table of the training data set's classes with the text tower."""
        self.embeddings = self._embed(self.class_names).clone()

    def forward(self, names: Sequence[str]) -> Tensor:
        """Embeddings (len(names), C).

        Raises:
            ZssError: no checkpoint was loaded and no text tower has filled the table.
        """
        if not set(names) <= set(self.class_names):
            return self._embed(names)
        if bool(self.embeddings.isnan().any()):
            raise ZssError(
                "MODEL.CLIP_ZSS.TEACHER is False and no checkpoint is loaded, so the classes have "
                "no text embeddings; give MODEL.WEIGHTS, or set it to True"
            )
        return self.embeddings[[self.class_names.index(name) for name in names]]

    def _embed(self, names: Sequence[str]) -> Tensor:
        if self.encoder is None:
            self.encoder = Unsaved(self._text_encoder()).to(self.embeddings.device)
        return self.encoder.module.classifier(names, self.templates, self.synonyms)


def joint_dim(clip_name: str) -> int:
    """C of an open_clip model, without building it.

    Raises:
        ZssError: unknown name.
    """
    config = open_clip.get_model_config(clip_name)
    if config is None:
        raise ZssError(
            f"MODEL.CLIP.NAME is {clip_name!r}, which open_clip does not know; "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists the names"
        )
    return config["embed_dim"]
