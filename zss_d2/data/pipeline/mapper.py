"""Turns a data set record into the tensors a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog

from zss_d2.data.files.encoding import MaskEncoding
from zss_d2.data.files.images import read_image
from zss_d2.data.labels import hide_unseen
from zss_d2.data.pipeline.augmentation import (
    CategoryCrop,
    MmsegmentationColours,
    OpenCVResize,
    ResizeWithinBox,
    photometric_distortion,
)
from zss_d2.data.pipeline.workers import begin_worker
from zss_d2.data.pipeline.written_labels import WrittenLabels
from zss_d2.data.spec.custom import register_custom

# The crop is built before any record, hence any metadata, is known. Where a benchmark has another
# ignore label, the only effect is that the area limit counts it as a class.
IGNORED_WHEN_CROPPING = 255


class ZeroShotMapper:
    """Reads, augments and converts one record; unseen classes come from the record's metadata."""

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[T.Augmentation],
        image_format: str = "RGB",
        hide_unseen_labels: bool = True,
        unseen_location: bool = False,
        pseudo_labels: str = "",
        leaky_oracle: bool = False,
        custom: Sequence[str] = (),
    ):
        """
        Args:
            is_train: whether masks are read; at test time the data set's class names come instead.
            augmentations: applied in order to the image and, in training, to the mask.
            image_format: of `zss_d2.data.files.images.read_image`.
            hide_unseen_labels: turn pixels of unseen classes into the ignore label.
            unseen_location: but say where they were, which is a leak of the ground truth.
            pseudo_labels: output folder of ``zss predict`` for the training images; "": none.
            leaky_oracle: in training also return all labels as ``leaky_oracle_sem_seg``, for upper
                bounds that look at what is hidden.
            custom: descriptions of custom datasets, see `zss_d2.data.spec.custom`.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.hide_unseen_labels = hide_unseen_labels
        self.unseen_location = unseen_location
        self.pseudo_labels = pseudo_labels
        # By data set, whose ids they are in.
        self._written: dict[str, WrittenLabels] = {}
        self.leaky_oracle = leaky_oracle
        self.custom = tuple(custom)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A loader's worker that was spawned, not forked, knows the built-in data sets only.
        self.__dict__.update(state)
        register_custom(self.custom)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        settings = cfg.ZERO_SHOT.SELF_TRAINING
        trains_itself = is_train and cfg.ZERO_SHOT.SETTING == "transductive"
        return {
            "is_train": is_train,
            "augmentations": train_augmentations(cfg) if is_train else inference_augmentations(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "hide_unseen_labels": cfg.ZERO_SHOT.SETTING != "supervised",
            "unseen_location": trains_itself and settings.PIXELS == "unseen_location",
            "pseudo_labels": settings.FOLDER
            if trains_itself and settings.SOURCE == "offline"
            else "",
            "leaky_oracle": bool(cfg.ZERO_SHOT.LEAKY_ORACLE),
            "custom": cfg.DATASETS.CUSTOM,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one record of `zss_d2.data.spec.registry`.

        Returns:
            The record with ``height`` and ``width`` of the original image in px and ``image``
            (3, H, W) uint8; in training also ``sem_seg`` (H, W) int64, and what was asked for of
            ``unseen_location`` (H, W) bool and ``pseudo_labels`` (H, W) int64; at test time
            ``vocabulary``, the tuple of class names.

        Raises:
            ZssError: a file is unreadable, sizes disagree, or the mask holds an undefined value.
        """
        begin_worker()
        metadata = MetadataCatalog.get(record["dataset_name"])
        if self.is_train:
            image, truth = MaskEncoding.of(metadata).read_pair(record, self.image_format)
            sem_seg = self._visible(truth, metadata)
        else:
            image, sem_seg = read_image(record["file_name"], self.image_format), None
        output = dict(record, height=image.shape[0], width=image.shape[1])

        augmented = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(augmented)
        output["image"] = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            output["sem_seg"] = torch.from_numpy(augmented.sem_seg.astype(np.int64))
            if self.unseen_location:
                hidden = transforms.apply_segmentation((sem_seg != truth).astype(np.uint8))
                output["unseen_location"] = torch.from_numpy(hidden.astype(bool))
            if self.pseudo_labels:
                labels = self.written(record["dataset_name"]).read(record["file_name"], truth.shape)
                labels = transforms.apply_segmentation(labels)
                output["pseudo_labels"] = torch.from_numpy(labels.astype(np.int64))
            if self.leaky_oracle:
                truth = transforms.apply_segmentation(truth)
                output["leaky_oracle_sem_seg"] = torch.from_numpy(truth.astype(np.int64))
        else:
            output["vocabulary"] = tuple(metadata.stuff_classes)
        return output

    def written(self, dataset: str) -> WrittenLabels:
        """The pseudo labels, in the ids of a data set; raises ZssError as `WrittenLabels`."""
        if dataset not in self._written:
            metadata = MetadataCatalog.get(dataset)
            self._written[dataset] = WrittenLabels(
                Path(self.pseudo_labels).expanduser(),
                metadata.stuff_classes,
                metadata.unseen_classes,
                metadata.ignore_label,
            )
        return self._written[dataset]

    def _visible(self, labels: np.ndarray, metadata: Any) -> np.ndarray:
        """Of labels (H, W) those that training may see.

        Before any augmentation, so that crops are not chosen by what is hidden either.
        """
        if not self.hide_unseen_labels:
            return labels
        unseen_ids = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
        return hide_unseen(labels, unseen_ids, metadata.ignore_label)


def train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Random scale, crop, flip and colours, as ``cfg.INPUT`` says."""
    crop, flip = cfg.INPUT.CROP, cfg.INPUT.RANDOM_FLIP
    augmentations = [_resize(cfg, ResizeWithinBox(cfg.INPUT.RESIZE_BASE, cfg.INPUT.SCALE_RANGE))]
    if crop.ENABLED:
        augmentations.append(
            CategoryCrop(
                "absolute", crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, IGNORED_WHEN_CROPPING
            )
        )
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    if cfg.INPUT.COLOR_AUG and cfg.INPUT.COLOR_STYLE == "mmsegmentation":
        augmentations.append(MmsegmentationColours())
    elif cfg.INPUT.COLOR_AUG:
        augmentations += photometric_distortion()
    return augmentations


def inference_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Resize the shorter edge to INPUT.MIN_SIZE_TEST px, or keep the size where that is 0."""
    if cfg.INPUT.MIN_SIZE_TEST <= 0:
        return []
    edge = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return [_resize(cfg, edge)]


def _resize(cfg: CfgNode, augmentation: T.Augmentation) -> T.Augmentation:
    return augmentation if cfg.INPUT.ANTIALIAS else OpenCVResize(augmentation)
