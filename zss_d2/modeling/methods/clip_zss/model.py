"""The CLIP-ZSS meta-architecture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.build import build_parts
from zss_d2.modeling.methods.clip_zss.classifier import TextClassifier
from zss_d2.modeling.methods.clip_zss.criterion import (
    DistillationCriterion,
    DistillationInputs,
    Examined,
)
from zss_d2.modeling.methods.clip_zss.plm.oracle import ORACLE_LABELS, hidden_code
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED
from zss_d2.modeling.methods.clip_zss.similarity import cosine_map, dot_map
from zss_d2.modeling.precision import network_precision, single_precision, to_single
from zss_d2.modeling.segmentor import ZeroShotSegmentor
from zss_d2.modeling.trace import Trace, dense_stage

logger = logging.getLogger(__name__)

_LEARNER = "learner."
_TABLE = "classifier.embeddings"


@META_ARCH_REGISTRY.register()
class CLIPZSS(ZeroShotSegmentor):
    """Any encoder as a zero-shot segmenter, distilled from CLIP.

    Only training needs CLIP's image tower. Scores are softmax(alpha cos(R, T)).
    """

    relies_on = ("MODEL.CLIP_ZSS.SYNTHESIZER.NUM_HEADS",)
    beside_logits = ("classifier", "learner")

    @configurable
    def __init__(
        self,
        *,
        student: nn.Module,
        classifier: TextClassifier,
        alpha: float,
        cosine: bool,
        learner: DistillationCriterion | None = None,
        leaky_oracle: Sequence[str] = (),
        **base_kwargs: Any,
    ):
        """
        Args:
            student: images (B, 3, H, W) -> dense features (B, C, h, w).
            classifier: class names -> unit-norm embeddings.
            alpha: scale of the text logits.
            cosine: bring features to unit norm before they are compared with text.
            learner: the losses of a training; None: a model for inference.
            leaky_oracle: what hidden labels stand in for, see `DistillationCriterion`.
            base_kwargs: arguments of `ZeroShotSegmentor`.
        """
        super().__init__(**base_kwargs)
        self.student = student
        self.classifier = classifier
        self.alpha = alpha
        self.cosine = cosine
        self.learner = learner
        self.leaky_oracle = tuple(leaky_oracle)
        if learner is None:
            self.register_load_state_dict_pre_hook(_drop_learner)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return build_parts(cls, cfg)

    def identity(self) -> dict[str, Any]:
        """With what the rows of the text table stand for, and a leaky training as one."""
        leak = {"leaky_oracle": list(self.leaky_oracle)} if self.leaky_oracle else {}
        return {**super().identity(), "text": self.classifier.identity(), **leak}

    def settings(self) -> dict[str, Any]:
        own = {"MODEL.CLIP_ZSS.ALPHA": self.alpha, "MODEL.CLIP_ZSS.COSINE": self.cosine}
        return super().settings() | own

    def adopt(self, identity: Mapping[str, Any], state: dict[str, Tensor]) -> None:
        """Matches the rows of the text table by class name; see `TextClassifier.adopt`.

        What only training needs starts anew where the checkpoint is without, as in `to_share`.
        """
        super().adopt(identity, state)
        learner = {k: x for k, x in self.state_dict().items() if k.startswith(_LEARNER)}
        if learner and not any(name.startswith(_LEARNER) for name in state):
            logger.warning(
                "The checkpoint has no weights that only training needs; they start anew"
            )
            state.update(learner)
        if "text" in identity and _TABLE in state:
            state[_TABLE] = self.classifier.adopt(identity["text"], state[_TABLE])

    def to_share(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The student and its table of embeddings, without CLIP and what only training needs."""
        state, keys = super().to_share()
        student = {name: x for name, x in state.items() if not name.startswith(_LEARNER)}
        encoder = "MODEL.CLIP_ZSS.ENCODER"
        alone = {"MODEL.CLIP_ZSS.TEACHER": False, f"{encoder}.PRETRAINED": False}
        return student, {**keys, **alone, f"{encoder}.WEIGHTS": ""}

    def text_embeddings(self, class_names: Sequence[str]) -> Tensor:
        return self.classifier(class_names)

    def embedded_logits(self, images: Tensor, text: Tensor) -> Tensor:
        return self._text_logits(self.student(images), text)

    @torch.no_grad()
    def trace(self, images: Tensor, class_names: Any) -> Trace:
        """The student's features of normalised images (B, 3, H, W) and the classes."""
        padded, text = self._pad(list(images)), self.classifier(class_names)
        stage = dense_stage("student's features", self.student(padded), text)
        return Trace(text, [stage], tuple(padded.shape[2:]))

    def activate(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)

    def training_outputs(self, images: Tensor) -> DistillationInputs:
        """Outputs of student and teacher.

        Raises:
            ZssError: the model was built for inference.
        """
        if self.learner is None:
            raise ZssError("MODEL.CLIP_ZSS.TEACHER is False, which is for tests; train with True")
        features, text = self.student(images), self.classifier(self.loss_classes)
        unseen = self.hidden_classes if "embeddings" in self.leaky_oracle else ()
        return DistillationInputs(
            features=features,
            logits=self._text_logits(features, text),
            text=text,
            teacher=None if self.learner.teacher is None else self.learner.teacher(images),
            images=images,
            networks=partial(network_precision, *self._current_precision()),
            unseen_text=self.classifier(unseen) if unseen else None,
        )

    def _current_precision(self) -> tuple[torch.device, torch.dtype | None, bool | None]:
        """Device, autocast and TF32 here, for networks that are called again in `losses`."""
        kind = self.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return self.device, half, self.precision.tf32

    def training_logits(self, outputs: DistillationInputs) -> Tensor:
        return outputs.logits

    def losses(self, outputs: DistillationInputs, targets: Tensor) -> dict[str, Tensor]:
        """See `DistillationCriterion`."""
        return self.learner(outputs, targets.where(targets != self.ignore_label, UNLABELLED))

    @torch.no_grad()
    def examine(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Examined:
        """Features, pseudo labels and prototypes that a training would have on these images.

        Unlike in a training, batch norms take the statistics that they have learnt.

        Raises:
            ZssError: the model was built for inference, or a label that training must not see.
        """
        images = [self._enlarge(self.normalise(x["image"]), 0.0) for x in batched_inputs]
        targets = self._targets(batched_inputs)
        targets = targets.where(targets != self.ignore_label, UNLABELLED)
        with self.precision.networks(self.device, training=True):
            outputs = self.training_outputs(self._pad(images))
        with single_precision(self.device):
            return self.learner.examine(to_single(outputs), targets)

    @property
    def hidden_classes(self) -> tuple[str, ...]:
        """Those without labels in training, which a leaky oracle looks at."""
        return tuple(name for name in self.classes if name not in self.labelled_classes)

    def _targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Tensor:
        """With the labels of unseen classes as hidden codes if there is a leaky oracle."""
        targets = super()._targets(batched_inputs)
        if not self.leaky_oracle:
            return targets
        table = torch.full((max(len(self.classes), self.ignore_label + 1),), self.ignore_label)
        for number, name in enumerate(self.hidden_classes):
            table[self.classes.index(name)] = hidden_code(number)
        masks = [table[item[ORACLE_LABELS].cpu()] for item in batched_inputs]
        hidden = self.padded_masks(masks, self.ignore_label)
        return targets.where(targets != self.ignore_label, hidden)

    def _text_logits(self, features: Tensor, text: Tensor) -> Tensor:
        """alpha cos(R, T), or alpha R . T: (B, C, h, w) and (K, C) -> (B, K, h, w)."""
        similarity = cosine_map if self.cosine else dot_map
        return similarity(features, self.alpha * text)  # few numbers there, many maps here


def _drop_learner(module: nn.Module, state: dict[str, Tensor], *_: Any) -> None:
    """Let a checkpoint of training load into a model for inference."""
    for key in [key for key in state if key.startswith(_LEARNER)]:
        del state[key]
