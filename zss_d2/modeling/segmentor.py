"""What all methods share: normalise -> pad -> losses | scores -> original size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.errors import ZssError
from zss_d2.modeling.inference import slide


class ZeroShotSegmentor(nn.Module):
    """Base of the meta-architectures.

    A method implements `class_logits` and `losses`. Inputs are Detectron2's list of dicts:

    - ``image``: (3, H, W), RGB in 0..255;
    - ``sem_seg`` (training): (H, W), ids into the training classes of the data set, or ignore;
    - ``vocabulary`` (test, optional): class names to choose from, by default all classes of the
      training data set;
    - ``height``, ``width`` (test): size of the result.
    """

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        classes: Sequence[str],
        train_classes: Sequence[str],
        ignore_label: int,
        slide_crop: int | None = None,
        slide_stride: int | None = None,
    ):
        """
        Args:
            pixel_mean, pixel_std: RGB, 0..255.
            size_divisibility: images are padded to multiples of it, px.
            classes: all class names of the training data set, in the order of its label ids.
            train_classes: those whose labels may be used; in the inductive setting the seen ones.
            ignore_label: label of pixels without a usable class.
            slide_crop, slide_stride: sliding-window inference, px; None: whole image.
        """
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.size_divisibility = size_divisibility
        self.classes = tuple(classes)
        self.train_classes = tuple(train_classes)
        self.ignore_label = ignore_label
        self.slide_crop = slide_crop
        self.slide_stride = slide_stride
        self.register_buffer("label_map", self._build_label_map(), False)

    @classmethod
    def contract_from_config(
        cls, cfg: CfgNode, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> dict[str, Any]:
        """Arguments of this base class; the given statistics hold where the config has none."""
        if not cfg.DATASETS.TRAIN:
            raise ZssError("DATASETS.TRAIN is empty; the model takes its seen classes from there")
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        inductive = cfg.ZERO_SHOT.SETTING == "inductive"
        sliding = cfg.TEST.SLIDE.ENABLED
        return {
            "pixel_mean": cfg.MODEL.PIXEL_MEAN or pixel_mean,
            "pixel_std": cfg.MODEL.PIXEL_STD or pixel_std,
            "classes": metadata.stuff_classes,
            "train_classes": metadata.seen_classes if inductive else metadata.stuff_classes,
            "ignore_label": metadata.ignore_label,
            "slide_crop": cfg.TEST.SLIDE.CROP if sliding else None,
            "slide_stride": cfg.TEST.SLIDE.STRIDE if sliding else None,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K, h, w) of the named classes."""
        raise NotImplementedError

    def losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W), targets (B, H, W) in `train_classes` -> loss scalars."""
        raise NotImplementedError

    def forward(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor] | list[dict]:
        """Training: loss scalars. Evaluation: one ``{"sem_seg": (K, height, width)}`` per image,
        scores in 0..1."""
        if self.training:
            images = self._pad([self._normalise(x["image"]) for x in batched_inputs])
            return self.losses(images, self._targets(batched_inputs))
        return [{"sem_seg": self._segment(x)} for x in batched_inputs]

    def activate(self, logits: Tensor) -> Tensor:
        """Logits (B, K, H, W) -> scores in 0..1; by default every class is its own yes-or-no."""
        return logits.sigmoid()

    def scores(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised, unpadded images (B, 3, H, W) -> scores (B, K, H, W) in 0..1."""
        logits = self.class_logits(self._pad(list(images)), class_names)
        height, width = images.shape[-2:]
        padded = [side + -side % self.size_divisibility for side in (height, width)]
        return self.activate(self.upsample(logits, padded)[..., :height, :width])

    @staticmethod
    def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits (B, K, h, w) bilinearly to ``size`` (H, W)."""
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)

    def _segment(self, item: Mapping[str, Any]) -> Tensor:
        names = item.get("vocabulary", self.classes)
        image = self._normalise(item["image"])[None]
        if self.slide_crop is None:
            scores = self.scores(image, names)
        else:
            scores = slide(
                lambda view: self.scores(view, names), image, self.slide_crop, self.slide_stride
            )
        size = tuple(image.shape[-2:])
        height, width = item.get("height", size[0]), item.get("width", size[1])
        return sem_seg_postprocess(scores[0], size, height, width)

    def _normalise(self, image: Tensor) -> Tensor:
        return (image.to(self.device) - self.pixel_mean) / self.pixel_std

    def _pad(self, images: list[Tensor]) -> Tensor:
        return ImageList.from_tensors(images, self.size_divisibility).tensor

    def _build_label_map(self) -> Tensor:
        """Label id -> index into `train_classes`; -1 where training must never see the id.

        The last entry stands for all ids out of range.
        """
        size = max(len(self.classes), self.ignore_label + 1)
        label_map = torch.full((size + 1,), -1)
        label_map[self.ignore_label] = self.ignore_label
        for index, name in enumerate(self.train_classes):
            label_map[self.classes.index(name)] = index
        return label_map

    def _targets(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Tensor:
        """Padded labels (B, H, W) in `train_classes`.

        Raises:
            ZssError: a label that training must not see, such as an unseen class: a leak.
        """
        targets = []
        for item in batched_inputs:
            label = item["sem_seg"].to(self.device)
            out_of_range = len(self.label_map) - 1
            known = (label >= 0) & (label < out_of_range)
            target = self.label_map[label.where(known, out_of_range)]
            if bool((target < 0).any()):
                self._report_leak(item, label[target < 0].unique().tolist())
            targets.append(target)
        return ImageList.from_tensors(targets, self.size_divisibility, self.ignore_label).tensor

    def _report_leak(self, item: Mapping[str, Any], ids: list[int]) -> None:
        names = [self.classes[i] if 0 <= i < len(self.classes) else "no class" for i in ids]
        raise ZssError(
            f"{item.get('file_name', 'a training image')}: labels {ids} ({', '.join(names)}) must "
            f"not reach training, which covers {len(self.train_classes)} of {len(self.classes)} "
            "classes; hide them in the mapper or set ZERO_SHOT.SETTING supervised"
        )
