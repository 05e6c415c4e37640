"""Pixel learning module (PLM): pseudo labels from clusters of CLIP's tokens, and prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.methods.clip_zss.plm.fusion import multi_scale_regions
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import (
    FusedLabels,
    fuse_labels,
    usable_regions,
)
from zss_d2.modeling.methods.clip_zss.plm.synthesizer import (
    Synthesizer,
    mask_centroids,
    prototype_loss,
)
from zss_d2.modeling.methods.clip_zss.similarity import cosine_map

# Logit of a prototype that does not exist or belongs to another image: finite, so that losses stay
# finite, and its probability is 0 under softmax and sigmoid.
ABSENT = -1e4


class RegionSettings(NamedTuple):
    """How pseudo regions are found; see `defaults.yaml`."""

    windows: Sequence[int]
    iterations: int
    threshold: float
    min_tokens: int
    min_unlabeled_fraction: float


def pseudo_regions(dense: Tensor, settings: RegionSettings) -> Tensor:
    """Region ids (B, h, w) of CLIP's dense tokens (B, C, h, w); `UNLABELLED` where unusable."""
    regions = multi_scale_regions(dense, settings.windows, settings.iterations, settings.threshold)
    return usable_regions(regions, settings.min_tokens)


class PixelTargets(NamedTuple):
    """What the pixel losses are taken on."""

    logits: Tensor  # x, (B, K + P, h, w)
    labels: Tensor  # F, (B, H, W)
    loss_bce: Tensor | None  # of the seen prototypes; None without synthesizer


class PLM(nn.Module):
    """x = cat(alpha cos(R, T_seen), beta cos(R, P_pseudo)) and F for it.

    The logits of a pixel are those of the pseudo prototypes of its own image.
    """

    def __init__(
        self,
        regions: RegionSettings,
        *,
        prototypes: str,
        synthesizer: Synthesizer | None,
        alpha: float,
        beta: float,
        detach: bool,
    ):
        """
        Args:
            prototypes: "synthesizer", "student" or "teacher", see ``defaults.yaml``.
            synthesizer: for ``prototypes="synthesizer"``.
            alpha: scale of the similarity of seen prototypes to text in their BCE.
            beta: scale of the logits of pseudo prototypes.
            detach: no gradient through pseudo prototypes.
        """
        super().__init__()
        self.regions = regions
        self.prototypes = prototypes
        self.synthesizer = synthesizer
        self.alpha = alpha
        self.beta = beta
        self.detach = detach

    def forward(
        self,
        teacher: ImageFeatures,
        features: Tensor,
        seen_logits: Tensor,
        text: Tensor,
        targets: Tensor,
        inside: Tensor,
    ) -> PixelTargets:
        """
        Args:
            teacher: CLS (B, C) and dense tokens (B, C, h', w').
            features: R, (B, C, h, w).
            seen_logits: (B, K, h, w).
            text: T_seen, (K, C).
            targets: (B, H, W), seen ids or `UNLABELLED`.
            inside: (B, H, W), False in the padding.
        """
        num_seen = len(text)
        fused = self.fused_labels(teacher.dense, targets, inside, num_seen, features.shape[2:])
        centroids, present = mask_centroids(
            self._prototype_source(teacher.dense, features),
            fused.coarse,
            num_seen + fused.num_pseudo,
        )
        loss = None
        if self.synthesizer is not None:
            centroids = self.synthesizer(centroids, teacher.cls)
            loss = prototype_loss(centroids[:, :num_seen], text, present[:, :num_seen], self.alpha)
        pseudo = centroids[:, num_seen:]
        pseudo_logits = prototype_logits(
            features, pseudo.detach() if self.detach else pseudo, present[:, num_seen:], self.beta
        )
        logits = torch.cat([seen_logits, pseudo_logits.to(seen_logits)], dim=1)
        return PixelTargets(logits, fused.labels, loss)

    @torch.no_grad()
    def fused_labels(
        self, dense: Tensor, targets: Tensor, inside: Tensor, num_seen: int, size: Sequence[int]
    ) -> FusedLabels:
        """F from CLIP's dense tokens; arguments as of `forward`, ``size`` of the features."""
        regions = pseudo_regions(dense, self.regions)
        return fuse_labels(
            targets, regions, inside, num_seen, size, self.regions.min_unlabeled_fraction
        )

    def _prototype_source(self, dense: Tensor, features: Tensor) -> Tensor:
        if self.prototypes != "teacher":
            return features
        return F.interpolate(dense, features.shape[2:], mode="bilinear", align_corners=False)


def prototype_logits(features: Tensor, prototypes: Tensor, present: Tensor, scale: float) -> Tensor:
    """scale * cos(R, P) for the prototypes of the own image; `ABSENT` for those not present.

    Args:
        features: R, (B, C, h, w).
        prototypes: (B, P, C).
        present: (B, P), bool.

    Returns:
        (B, P, h, w).
    """
    logits = cosine_map(features, scale * F.normalize(prototypes, dim=2))
    return logits.masked_fill(~present[..., None, None], ABSENT)
