"""Everything that only training needs: the teacher, GLM, PLM, local learning, the sum of losses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from torch import Tensor, nn

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.methods.clip_zss.glm import GLM
from zss_d2.modeling.methods.clip_zss.local.teaching import (
    RegionTeacher,
    RegionTokens,
    at_ids,
    local_info_nce,
)
from zss_d2.modeling.methods.clip_zss.plm.loss import PLM
from zss_d2.modeling.methods.clip_zss.plm.oracle import named_by_truth, split_hidden
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import (
    FusedLabels,
    fuse_labels,
    resize_labels,
)
from zss_d2.modeling.methods.clip_zss.plm.regions import RegionSettings
from zss_d2.modeling.methods.clip_zss.plm.synthesizer import mask_centroids
from zss_d2.modeling.methods.clip_zss.teacher import Teacher


class PixelLosses(nn.Module):
    """CE and NEL of logits against labels, both optional."""

    def __init__(self, ce: SoftmaxLoss | None, nel: NELLoss | None, nel_bias: float = 0.0):
        """
        Args:
            nel_bias: added to the logits for NEL, whose sigmoids, unlike a softmax, need a zero.
        """
        super().__init__()
        self.ce = ce
        self.nel = nel
        self.nel_bias = nel_bias

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Logits (B, K, h, w), labels (B, H, W) -> ``loss_ce`` and ``loss_nel``."""
        losses = {}
        if self.ce is not None:
            losses |= self.ce(logits, labels)
        if self.nel is not None:
            losses["loss_nel"] = sum(self.nel(logits + self.nel_bias, labels).values())
        return losses


class DistillationInputs(NamedTuple):
    """Outputs of student and teacher for normalised, padded images (B, 3, H, W)."""

    features: Tensor  # of the student, (B, C, h, w)
    logits: Tensor  # of the seen classes, (B, K, h, w)
    text: Tensor  # their embeddings, (K, C)
    teacher: ImageFeatures | None
    images: Tensor
    networks: Callable[[], AbstractContextManager[Any]]  # the precision that they were made in
    unseen_text: Tensor | None = None  # (U, C), for a leaky oracle alone


class Found(NamedTuple):
    """What is known of a batch before its losses."""

    targets: Tensor  # (B, H', W'), at the size of the pixel losses
    fused: FusedLabels | None  # F, at that size; None: nothing needs regions
    local: RegionTokens | None


class Examined(NamedTuple):
    """What a training knows of images: features, pseudo labels, what stands for their regions."""

    features: Tensor  # R, (B, C, h, w)
    num_seen: int  # K
    labels: Tensor | None = None  # F, (B, H', W'): `UNLABELLED`, seen ids, K + number of a region
    prototypes: Tensor | None = None  # of the regions, (B, P, C); None without pixel learning
    present: Tensor | None = None  # (B, P) bool, regions that a prototype can be made of


class LocalLearning(NamedTuple):
    """What makes CLS tokens of regions, and the weight of their loss."""

    teacher: RegionTeacher
    weight: float
    temperature: float


class DistillationCriterion(nn.Module):
    """CLIP-ZSS: L = L_global + NEL(x, F) + CE(x, F) + BCE(P_seen, T_seen); C2S: L_local, not BCE.

    Checkpoints and ``SOLVER.LR_FACTORS`` know what it trains as ``learner.pixel_learning``.
    """

    def __init__(
        self,
        *,
        teacher: Teacher | None,
        pixel_losses: PixelLosses,
        regions: RegionSettings | None = None,
        global_learning: GLM | None = None,
        pixel_learning: PLM | None = None,
        local_learning: LocalLearning | None = None,
        global_weight: float = 1.0,
        pseudo_weight: float = 1.0,
        bce_weight: float = 1.0,
        loss_stride: int = 1,
        oracle: Collection[str] = (),
    ):
        """
        Args:
            teacher: None if nothing of it is on.
            pixel_losses: NEL and CE.
            regions: how pseudo regions are found, for PLM and local learning.
            global_learning: None: off.
            pixel_learning: None: only ground truth.
            local_learning: CLS tokens of regions; None: off.
            pseudo_weight: share of the pixel losses on F, the rest is on ground truth alone.
            loss_stride: step of the pixels that the pixel losses look at, px.
            oracle: of "regions" and "embeddings", what hidden labels stand in for.
        """
        super().__init__()
        self.teacher = teacher
        self.pixel_losses = pixel_losses
        self.regions = regions
        self.global_learning = global_learning
        self.pixel_learning = pixel_learning
        self.local_learning = local_learning
        self.global_weight = global_weight
        self.pseudo_weight = pseudo_weight if pixel_learning is not None else 0.0
        self.bce_weight = bce_weight
        self.loss_stride = loss_stride
        self.oracle = frozenset(oracle)

    def forward(self, x: DistillationInputs, targets: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: outputs of the networks.
            targets: (B, H, W), seen ids or `UNLABELLED`; hidden codes too if there is an oracle.

        Returns:
            ``loss_ce``, ``loss_nel``, ``loss_global``, ``loss_local`` and ``loss_bce``, those that
            are on.
        """
        targets, fused, local = self._find(x, targets)
        share, losses = self.pseudo_weight, {}
        if share < 1:
            losses = _scaled(self.pixel_losses(x.logits, targets), 1 - share)
        if share > 0:
            pixel = self.pixel_learning(
                *(x.teacher, x.features, x.logits, x.text, fused),
                local=local,
                unseen_text=x.unseen_text,
            )
            on_fused = _scaled(self.pixel_losses(pixel.logits, pixel.labels), share)
            losses = {name: value + losses.get(name, 0) for name, value in on_fused.items()}
            if pixel.loss_bce is not None:
                losses["loss_bce"] = self.bce_weight * pixel.loss_bce
        if local is not None and self.local_learning.weight > 0:
            losses["loss_local"] = self._local_loss(x, fused, local)
        if self.global_learning is not None:
            loss = self.global_learning(x.teacher.cls, x.features)
            losses["loss_global"] = self.global_weight * loss
        return losses

    def examine(self, x: DistillationInputs, targets: Tensor) -> Examined:
        """What the losses see; arguments as of `forward`."""
        _, fused, local = self._find(x, targets)
        found = Examined(x.features, len(x.text), None if fused is None else fused.labels)
        if self.pixel_learning is None:
            return found
        _, pseudo, present = self.pixel_learning.prototypes_of(
            *(x.teacher, x.features, found.num_seen, fused),
            local=local,
            unseen_text=x.unseen_text,
        )
        return found._replace(prototypes=pseudo, present=present[:, found.num_seen :])

    def _find(self, x: DistillationInputs, targets: Tensor) -> Found:
        size = [side // self.loss_stride for side in targets.shape[1:]]
        all_targets, targets = targets, resize_labels(targets, size)
        hidden = None
        if self.oracle:
            all_targets, _ = split_hidden(all_targets)
            targets, hidden = split_hidden(targets)
        if self.regions is None:
            return Found(targets, None, None)
        # A pixel of exactly the mean colour counts as padding; it just gets no pseudo label.
        inside = (x.images != 0).any(dim=1)
        fused, local = self._label(x, targets, resize_labels(inside, size).bool(), hidden), None
        if self.local_learning is not None:
            number = len(x.text) + fused.num_pseudo
            local = self.local_learning.teacher.tokens(
                *(self.teacher, x.teacher, x.images, fused, all_targets, inside, number),
                x.networks,
            )
        return Found(targets, fused, local)

    def _label(
        self, x: DistillationInputs, targets: Tensor, inside: Tensor, hidden: Tensor | None
    ) -> FusedLabels:
        """F, with hidden labels in the place of regions or of their names if there is an oracle."""
        num_seen, size = len(x.text), x.features.shape[2:]
        if "regions" in self.oracle:
            fused = fuse_labels(targets, hidden, inside, num_seen, size)
        else:
            fused = self.regions.label(x.teacher.dense, targets, inside, num_seen, size)
        if "embeddings" in self.oracle:
            fused = named_by_truth(fused, hidden, num_seen, len(x.unseen_text))
        return fused

    def _local_loss(self, x: DistillationInputs, fused: FusedLabels, local: RegionTokens) -> Tensor:
        number = len(x.text) + fused.num_pseudo
        means, _ = mask_centroids(x.features, fused.coarse, number)
        loss = local_info_nce(
            at_ids(means, local.ids), local.cls, local.present, self.local_learning.temperature
        )
        return self.local_learning.weight * loss


def _scaled(losses: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    return {name: weight * value for name, value in losses.items()}
