"""The classifier of a student: text embeddings that come with its checkpoint."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zss_d2.clip import PromptSettings, TextEncoder
from zss_d2.clip.frozen import remembered
from zss_d2.clip.wording import prompts_for
from zss_d2.errors import ZssError
from zss_d2.modeling.clip_segmentor import describe_clip, require_activation, shortened
from zss_d2.modeling.methods.clip_zss.teacher import FrozenReference

logger = logging.getLogger(__name__)

# Lists of names whose rows are remembered.
_LISTS = 64


class TextClassifier(nn.Module):
    """Unit-norm embeddings of the training data set's classes, and of any other names on demand.

    What the embeddings stand for travels with them (`identity`): other class names are matched,
    other sentences, synonyms or another CLIP are refused.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        dim: int,
        text_encoder: Callable[[], TextEncoder],
        prompt_settings: PromptSettings,
    ):
        """
        Args:
            class_names: of the training data set.
            dim: C, CLIP's joint dimension.
            text_encoder: builds the text tower, or hands out one that exists; called when first
                needed.
            prompt_settings: sentences and synonyms that names are embedded with.
        """
        super().__init__()
        self.class_names = tuple(class_names)
        self.prompt_settings = prompt_settings
        self._text_encoder = text_encoder
        self.encoder: FrozenReference[TextEncoder] | None = None
        # NaN until they are embedded or come from a checkpoint.
        self.register_buffer("embeddings", torch.full((len(class_names), dim), torch.nan))
        # Known beforehand, so that `forward` depends on no value and can be exported.
        self._filled = False
        self.register_load_state_dict_post_hook(_look_at_the_table)
        # Names that were asked for, and the device -> their rows there.
        self._index: OrderedDict[tuple, Tensor] = OrderedDict()
        # CLIP that made them; empty: unknown.
        self._clip: Mapping[str, Any] = {}

    def embed_own_classes(self) -> None:
        """Fill the table of the training data set's classes with the text tower."""
        self.embeddings = self._embed(self.class_names, self.prompt_settings).clone()
        self._filled = True
        self._clip = _identity_of(self.encoder)

    def identity(self) -> dict[str, Any]:
        """What the rows of the table stand for."""
        return {
            "classes": list(self.class_names),
            **self._sentences(),
            "clip": dict(self._clip),
        }

    def adopt(self, found: Mapping[str, Any], table: Tensor) -> Tensor:
        """Bring the table of a checkpoint into the order of this model's classes.

        Args:
            found: its `identity`.
            table: (K', C), a row for each of its classes.

        Returns:
            (K, C). Classes that it lacks get the embeddings that the text tower gave them here.

        Raises:
            ZssError: sentences, synonyms or CLIP are others; a class is missing and there is no
                text tower.
        """
        shared = set(found["classes"]) & set(self.class_names)
        own = self._sentences()
        for key, theirs, ours in (
            ("TEMPLATES", found["templates"], own["templates"]),
            ("SYNONYMS", _of(shared, found["synonyms"]), _of(shared, own["synonyms"])),
        ):
            if theirs != ours:
                raise ZssError(
                    f"the checkpoint's classes were embedded with the {key.lower()} "
                    f"{shortened(theirs)}, this config has {shortened(ours)}; set MODEL.CLIP.{key} "
                    "as in its training (and TEMPLATE_SET, which goes before TEMPLATES)"
                )
        if self._clip and found["clip"]:
            _require_same_clip(found["clip"], self._clip)
        missing = [name for name in self.class_names if name not in shared]
        if missing and not self._filled:
            raise ZssError(
                f"the checkpoint has no text embedding of {len(missing)} classes, such as "
                f"{missing[0]!r}; give the DATASETS.TRAIN of its training, or "
                "MODEL.CLIP_ZSS.TEACHER True"
            )
        self._clip = found["clip"] or self._clip
        rows = {name: table[index] for index, name in enumerate(found["classes"])}
        own_rows = dict(zip(self.class_names, self.embeddings.to(table), strict=True))
        return torch.stack([rows.get(name, own_rows[name]) for name in self.class_names])

    def forward(self, names: Sequence[str]) -> Tensor:
        """Embeddings (len(names), C): those of the table, or new ones of other names and wordings.

        Raises:
            ZssError: no checkpoint was loaded and no text tower has filled the table.
        """
        prompts = prompts_for(names, self.prompt_settings)
        if prompts != self.prompt_settings or not set(names) <= set(self.class_names):
            return self._embed(names, prompts)
        if not self._filled:
            raise ZssError(
                "MODEL.CLIP_ZSS.TEACHER is False and no checkpoint is loaded, so the classes have "
                "no text embeddings; give MODEL.WEIGHTS, or set it to True"
            )
        return self._rows(tuple(names))

    def _rows(self, names: tuple[str, ...]) -> Tensor:
        """Rows of the table; which ones is copied to the device once for every list of names."""
        if names == self.class_names:
            return self.embeddings
        device = self.embeddings.device

        def make() -> Tensor:
            return torch.tensor([self.class_names.index(name) for name in names]).to(device)

        index = remembered(self._index, (names, device), make, _LISTS)
        return self.embeddings.index_select(0, index)

    def _sentences(self) -> dict[str, Any]:
        prompts = self.prompt_settings
        synonyms = {n: list(w) for n, w in prompts.synonyms.items() if n in self.class_names}
        return {"templates": list(prompts.templates), "synonyms": synonyms}

    def _embed(self, names: Sequence[str], prompts: PromptSettings) -> Tensor:
        if self.encoder is None:
            encoder = FrozenReference(self._text_encoder()).to(self.embeddings.device)
            if self._clip:
                # The table came with a checkpoint; what stands beside it must be of the same CLIP.
                _require_same_clip(self._clip, _identity_of(encoder))
            self.encoder = encoder
        return self.encoder.module.classifier(names, prompts)


def _look_at_the_table(module: TextClassifier, _: Any) -> None:
    module._filled = not bool(module.embeddings.isnan().any())


def _identity_of(encoder: FrozenReference[TextEncoder]) -> dict[str, Any]:
    clip = encoder.module.identity
    return {**describe_clip(clip), "text_fingerprint": clip.text_fingerprint()}


def _of(names: Collection[str], synonyms: Mapping[str, Any]) -> dict[str, Any]:
    return {name: words for name, words in synonyms.items() if name in names}


def _require_same_clip(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise `ZssError` unless embeddings of two CLIPs can stand in one table."""
    require_activation(found, own)
    if found["text_fingerprint"] == own["text_fingerprint"]:
        return
    if not own["pretrained"]:
        logger.warning(
            "The checkpoint's text embeddings are of %s %r, CLIP has random weights here: class "
            "names that are new to it mean nothing",
            *(found["name"], found["pretrained"]),
        )
        return
    raise ZssError(
        f"the checkpoint's text embeddings were made by the weights {found['pretrained']!r} of "
        f"CLIP {found['name']}, and {own['pretrained']!r} of {own['name']} are others; set "
        "MODEL.CLIP.NAME and MODEL.CLIP.PRETRAINED as in its training"
    )
