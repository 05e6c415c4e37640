"""Everything that only training needs: the teacher, GLM, PLM and the sum of the losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.methods.clip_zss.glm import GLM
from zss_d2.modeling.methods.clip_zss.plm.loss import PLM
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import resize_labels
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
    inside: Tensor  # (B, H, W) bool, False in the padding


class DistillationCriterion(nn.Module):
    """L = L_global + NEL(x, F) + CE(x, F) + BCE(P_seen, T_seen).

    Checkpoints and ``SOLVER.LR_FACTORS`` know what it trains as ``learner.pixel_learning``.
    """

    def __init__(
        self,
        *,
        teacher: Teacher | None,
        pixel_losses: PixelLosses,
        global_learning: GLM | None = None,
        pixel_learning: PLM | None = None,
        global_weight: float = 1.0,
        pseudo_weight: float = 1.0,
        bce_weight: float = 1.0,
    ):
        """
        Args:
            teacher: None if neither GLM nor PLM is on.
            pixel_losses: NEL and CE.
            global_learning: None: off.
            pixel_learning: None: only ground truth.
            pseudo_weight: share of the pixel losses on F, the rest is on ground truth alone.
        """
        super().__init__()
        self.teacher = teacher
        self.pixel_losses = pixel_losses
        self.global_learning = global_learning
        self.pixel_learning = pixel_learning
        self.global_weight = global_weight
        self.pseudo_weight = pseudo_weight if pixel_learning is not None else 0.0
        self.bce_weight = bce_weight

    def forward(self, x: DistillationInputs, targets: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: outputs of the networks.
            targets: (B, H', W'), seen ids or `UNLABELLED`; its size is that of the pixel losses.

        Returns:
            ``loss_ce``, ``loss_nel``, ``loss_global`` and ``loss_bce``, those that are on.
        """
        share, losses = self.pseudo_weight, {}
        if share < 1:
            losses = _scaled(self.pixel_losses(x.logits, targets), 1 - share)
        if share > 0:
            inside = resize_labels(x.inside, targets.shape[1:]).bool()
            pixel = self.pixel_learning(x.teacher, x.features, x.logits, x.text, targets, inside)
            on_fused = _scaled(self.pixel_losses(pixel.logits, pixel.labels), share)
            losses = {name: value + losses.get(name, 0) for name, value in on_fused.items()}
            if pixel.loss_bce is not None:
                losses["loss_bce"] = self.bce_weight * pixel.loss_bce
        if self.global_learning is not None:
            loss = self.global_learning(x.teacher.cls, x.features)
            losses["loss_global"] = self.global_weight * loss
        return losses


def _scaled(losses: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    return {name: weight * value for name, value in losses.items()}
