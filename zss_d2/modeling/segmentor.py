"""What all methods share: normalised images in, losses or logits out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F

from zss_d2.clip.wording import vocabulary_key
from zss_d2.data.spec.vocabulary import require_one_vocabulary
from zss_d2.errors import ZssError
from zss_d2.modeling.class_logits import ClassLogits
from zss_d2.modeling.identity import Identified
from zss_d2.modeling.inference import (
    InferenceProtocol,
    LabelsOnly,
    NanScoresError,
    segment_batch,
)
from zss_d2.modeling.inference.graphs import GraphedLogits
from zss_d2.modeling.precision import Precision, single_precision, to_single
from zss_d2.modeling.self_training import SelfTraining, SelfTrainingSettings
from zss_d2.utils.transfer import sent

logger = logging.getLogger(__name__)

# So many batches without a label, from the first on, end a training.
_VOID_BATCHES = 1000


class ZeroShotSegmentor(ClassLogits, Identified):
    """Base of the meta-architectures.

    A method implements `training_outputs`, `losses` and either `class_logits` or, as `zss export`
    needs it, `text_embeddings` and `embedded_logits`. Inputs are Detectron2's list of dicts:

    - ``image``: (3, H, W), RGB in 0..255;
    - ``sem_seg`` (training): (H, W), ids into the training classes of the data set, or ignore;
    - ``vocabulary`` (test, optional): class names to choose from, by default all classes of the
      training data set;
    - ``height``, ``width`` (test): size of the result.
    """

    find_unused_parameters = False
    """Whether a training step leaves out some parameters, which distributed training must know."""

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        classes: Sequence[str],
        train_classes: Sequence[str],
        labelled_classes: Sequence[str],
        ignore_label: int,
        train_size: Sequence[int] = (0, 0),
        protocol: InferenceProtocol | None = None,
        precision: Precision | None = None,
        settings: Mapping[str, Any] | None = None,
        self_training: SelfTrainingSettings | None = None,
    ):
        """
        Args:
            pixel_mean, pixel_std: RGB, 0..255.
            size_divisibility: images are padded to multiples of it, px.
            classes: all class names of the training data set, in the order of its label ids.
            train_classes: those whose names may be in the losses; in the inductive setting the seen
                ones.
            labelled_classes: those of them whose labels may be in the losses. Others are for a
                transductive method, which knows the names of unseen classes but not their labels.
            ignore_label: label of pixels without a usable class.
            train_size: least (height, width) of training images, px; smaller ones are padded.
            protocol: how the scores of a test image are made; None: in one plain pass.
            precision: of `class_logits` and `training_outputs`; None: that of the weights, or of an
                autocast around the model. `losses` and scores are in single precision either way.
            settings: values of `relies_on`.
            self_training: of the transductive setting, in which `train_classes` are those with
                labels, then those with names alone; None: there is none.

        Raises:
            ZssError: a class with labels that is not among the names, or a name that the data set
                lacks.
        """
        super().__init__(classes, train_classes, labelled_classes, settings)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.size_divisibility = size_divisibility
        self.ignore_label = ignore_label
        self.train_size = tuple(train_size)
        self.protocol = protocol or InferenceProtocol()
        self.precision = precision or Precision()
        # -1 where training must never see the id: of a class whose labels are not to be used.
        lut = self._train_ids(self.labelled_classes, other=-1)
        self.register_buffer("train_id_lut", lut, False)
        # Not buffers: labels are looked at on the CPU, before a GPU would have to be waited for.
        self._forbidden_ids, self._labelled_ids = lut < 0, (lut >= 0) & (lut != ignore_label)
        self.self_training: SelfTraining | None = None
        if self_training is not None:
            ids = self._train_ids(self.train_classes, other=ignore_label)
            self.self_training = SelfTraining(self_training, ids, len(self.train_classes))
        self._graphs = GraphedLogits()
        self.register_load_state_dict_post_hook(lambda module, _: module._graphs.clear())
        # Batches without a labelled pixel before the first one that has some; None: it has come.
        self._void_batches: int | None = 0

    @classmethod
    def base_kwargs(
        cls, cfg: CfgNode, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> dict[str, Any]:
        """Arguments of this base class; the given statistics hold where the config has none.

        Raises:
            ZssError: there is no training data set, or several that do not share their classes.
        """
        if not cfg.DATASETS.TRAIN:
            raise ZssError("DATASETS.TRAIN is empty; the model takes its seen classes from there")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        require_one_vocabulary(cfg.DATASETS.TRAIN)
        setting, crop = cfg.ZERO_SHOT.SETTING, cfg.INPUT.CROP
        labelled = metadata.stuff_classes if setting == "supervised" else metadata.seen_classes
        named = metadata.unseen_classes if setting == "transductive" else ()
        precision = Precision.from_config(cfg)
        logger.info(
            "Networks compute in %s in a training and in %s in tests (MODEL.AUTOCAST %r on %s%s)",
            *(precision.in_words(training=True), precision.in_words(training=False)),
            *(cfg.MODEL.AUTOCAST, cfg.MODEL.DEVICE),
            ", SOLVER.AMP" if precision.amp else "",
        )
        return {
            "pixel_mean": cfg.MODEL.PIXEL_MEAN or pixel_mean,
            "pixel_std": cfg.MODEL.PIXEL_STD or pixel_std,
            "classes": metadata.stuff_classes,
            "train_classes": [*labelled, *named],
            "labelled_classes": labelled,
            "ignore_label": metadata.ignore_label,
            "train_size": crop.SIZE if crop.ENABLED and crop.PAD else (0, 0),
            "protocol": InferenceProtocol.from_config(cfg),
            "precision": precision,
            "settings": cls.settings_from(cfg),
            "self_training": SelfTrainingSettings.from_config(cfg),
        }

    def identity(self) -> dict[str, Any]:
        """In the transductive setting also with where pseudo labels stand."""
        own = {} if self.self_training is None else self.self_training.settings.origin()
        return super().identity() | ({"self_training": own} if own else {})

    def settings(self) -> dict[str, Any]:
        """With the statistics of images, also those that come with CLIP."""
        return {
            **super().settings(),
            "MODEL.PIXEL_MEAN": [round(x, 3) for x in self.pixel_mean.flatten().tolist()],
            "MODEL.PIXEL_STD": [round(x, 3) for x in self.pixel_std.flatten().tolist()],
        }

    def to_share(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What goes into a folder that the model is shared in (`zss_d2.predict.pretrained`).

        Returns:
            the weights that predictions need, by the names of the state; and {key: value} of the
            config under which a model takes these and no others.
        """
        return self.state_dict(), {}

    def train(self, mode: bool = True) -> ZeroShotSegmentor:
        """As usual; what was recorded for evaluation ends with the weights that it was made of."""
        if mode:
            self._graphs.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> ZeroShotSegmentor:
        self._graphs.clear()
        return super()._apply(*args, **kwargs)

    @property
    def loss_classes(self) -> tuple[str, ...]:
        """Whose names are in the losses of this step.

        `train_classes`, but before self-training those with labels alone, which come first.
        """
        hidden = self.self_training is not None and not self.self_training.active
        return self.labelled_classes if hidden else self.train_classes

    @property
    def _has_pseudo_labels(self) -> bool:
        """Whether pixels without a label get one in this step."""
        return self.self_training is not None and self.self_training.active

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def training_outputs(self, images: Tensor) -> Any:
        """Normalised images (B, 3, H, W) -> what `losses` needs of the networks.

        A tensor, or tuples, lists and dicts of them.
        """
        raise NotImplementedError

    def losses(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """`training_outputs`, targets (B, H, W) in `loss_classes` -> loss scalars."""
        raise NotImplementedError

    def training_logits(self, outputs: Any) -> Tensor:
        """`training_outputs` -> logits (B, K, h, w) of `loss_classes`, for pseudo labels."""
        raise ZssError(
            f"MODEL.META_ARCHITECTURE {type(self).__name__} gives no logits of its training "
            "(training_logits); set ZERO_SHOT.SETTING inductive"
        )

    def forward(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor] | list[dict]:
        """Training: loss scalars. Evaluation: one ``{"sem_seg": (K, height, width)}`` per image.

        These are scores in 0..1, less the seen bias. A map larger than ``protocol.max_scores`` is
        a `LabelsOnly`, and so is one with which those of this call would be.
        """
        if self.training:
            images = (self.normalise(x["image"]) for x in batched_inputs)
            images = self._pad([self._enlarge(image, 0.0) for image in images])
            targets = self._targets(batched_inputs)
            with self.precision.networks(self.device, training=True):
                outputs = self.training_outputs(images)
                views = self.self_training.views(self, images) if self._has_pseudo_labels else ()
            with single_precision(self.device):
                outputs = to_single(outputs)
                if not self._has_pseudo_labels:
                    return self.losses(outputs, targets)
                return self.self_training.losses(self, batched_inputs, outputs, views, targets)
        return [{"sem_seg": scores} for scores in self._segment(batched_inputs)]

    def normalise(self, image: Tensor) -> Tensor:
        """RGB in 0..255, (3, H, W) -> what the network takes, on its device."""
        return (self._to_device(image) - self.pixel_mean) / self.pixel_std

    def _to_device(self, x: Tensor) -> Tensor:
        """An image or labels of the loader; a GPU that is busy is not waited for."""
        return sent(x, self.device)

    def logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) of any size -> logits (B, K, h, w), single precision.

        They cover the images padded at the right and bottom to `padded_size`.
        """
        height, width = self.padded_size(images.shape[-2:])
        if (height, width) != tuple(images.shape[-2:]):
            images = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))

        def compute(images: Tensor) -> Tensor:
            with self.precision.networks(self.device, training=False):
                return self.class_logits(images, class_names).float()

        if not self.protocol.cuda_graphs:
            return compute(images)
        return self._graphs(self, vocabulary_key(class_names), compute, images)

    def activate(self, logits: Tensor) -> Tensor:
        """Logits (B, K, H, W) -> scores in 0..1, every pixel by itself; may work in place.

        By default every class is its own yes-or-no."""
        return logits.sigmoid_()

    def _segment(self, items: Sequence[Mapping[str, Any]]) -> Iterator[Tensor | LabelsOnly]:
        room = self.protocol.max_scores
        for names, group in groupby(items, key=lambda x: x.get("vocabulary", self.classes)):
            group = list(group)
            images = [self.normalise(x["image"]) for x in group]
            sizes = [
                (x.get("height", image.shape[1]), x.get("width", image.shape[2]))
                for x, image in zip(group, images, strict=True)
            ]
            results = segment_batch(self, images, names, sizes, self.protocol)
            for item in group:
                try:
                    scores = next(results)
                    if not isinstance(scores, LabelsOnly) and scores.numel() > room:
                        scores = LabelsOnly.of(scores)
                except NanScoresError as error:
                    raise ZssError(f"{item.get('file_name', 'an image')}: {error}") from error
                room -= 0 if isinstance(scores, LabelsOnly) else scores.numel()
                yield scores

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width that images of ``size`` (H, W) have once padded."""
        height, width = (side + -side % self.size_divisibility for side in size)
        return height, width

    def _enlarge(self, x: Tensor, value: float) -> Tensor:
        """Pad (..., H, W) at the right and bottom to `train_size`."""
        height, width = (
            max(0, least - side) for least, side in zip(self.train_size, x.shape[-2:], strict=True)
        )
        return F.pad(x, (0, width, 0, height), value=value)

    def _pad(self, images: list[Tensor]) -> Tensor:
        return ImageList.from_tensors(images, self.size_divisibility).tensor

    def _train_ids(self, names: Sequence[str], other: int) -> Tensor:
        """Label id -> index into `train_classes` of these names; ``other`` for all other ids.

        The ignore label stays. The last entry stands for all ids out of range.
        """
        size = max(len(self.classes), self.ignore_label + 1)
        lut = torch.full((size + 1,), other)
        lut[self.ignore_label] = self.ignore_label
        for name in names:
            lut[self.classes.index(name)] = self.train_classes.index(name)
        return lut

    def _targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Tensor:
        """Padded labels (B, H, W) in `train_classes`.

        Raises:
            ZssError: a label that training must not see, such as an unseen class: a leak; too many
                batches without any labelled pixel.
        """
        masks, labelled = [], False
        for item in batched_inputs:
            present = ids_present(item["sem_seg"], len(self.train_id_lut) - 1)
            if bool((present & self._forbidden_ids).any()):
                self._report_leak(item)
            labelled = labelled or bool((present & self._labelled_ids).any())
            masks.append(self.train_id_lut[self._to_device(item["sem_seg"]).long()])
        self._watch_labels(labelled, batched_inputs)
        return self.padded_masks(masks, self.ignore_label)

    def padded_masks(self, masks: Sequence[Tensor], value: int | bool) -> Tensor:
        """(H, W) of every image -> (B, H, W) on the device, padded as its training images are."""
        enlarged = [self._enlarge(self._to_device(mask), value) for mask in masks]
        return ImageList.from_tensors(enlarged, self.size_divisibility, value).tensor

    def _watch_labels(self, labelled: bool, batched_inputs: Sequence[Mapping[str, Any]]) -> None:
        """Training on void alone runs, at a loss of 0 or on negatives only, and learns nothing.

        Args:
            labelled: whether the batch has a labelled pixel.

        Raises:
            ZssError: the first `_VOID_BATCHES` batches hold no labelled pixel.
        """
        if self._void_batches is None:
            return
        if labelled:
            self._void_batches = None
            return
        self._void_batches += 1
        problem = "no pixel is labelled as a class that may be trained"
        if self._void_batches == 1:
            name = batched_inputs[0].get("file_name", "an image")
            logger.warning("%s and the rest of its batch: %s", name, problem)
        if self._void_batches == _VOID_BATCHES:
            raise ZssError(
                f"{problem} in the first {_VOID_BATCHES} batches; look at the masks with "
                "`zss check` and the config, a benchmark or your data set's yaml"
            )

    def _report_leak(self, item: Mapping[str, Any]) -> None:
        size = len(self._forbidden_ids) - 1
        found = item["sem_seg"].cpu().unique().tolist()
        ids = [i for i in found if not 0 <= i < size or self._forbidden_ids[i]]
        names = [self.classes[i] if 0 <= i < len(self.classes) else "no class" for i in ids]
        raise ZssError(
            f"{item.get('file_name', 'a training image')}: labels {ids} ({', '.join(names)}) must "
            f"not reach training, which covers {len(self.labelled_classes)} of {len(self.classes)} "
            "classes; hide them in the mapper or set ZERO_SHOT.SETTING supervised"
        )


def ids_present(labels: Tensor, size: int) -> Tensor:
    """Which of the ids 0..size - 1 occur in labels (H, W).

    Of labels on a GPU this waits for it.

    Returns:
        (size + 1,) bool, on the CPU; the last entry stands for all ids out of range.
    """
    if not labels.numel():
        return torch.zeros(size + 1, dtype=torch.bool)
    low, high = map(int, labels.aminmax())
    if low < 0 or high >= size:
        labels = labels.long()
        labels = labels.where((labels >= 0) & (labels < size), size)
    elif high <= 255:
        labels = labels.to(torch.uint8)  # twice as fast, the cast included
    return labels.flatten().bincount(minlength=size + 1).cpu() > 0
