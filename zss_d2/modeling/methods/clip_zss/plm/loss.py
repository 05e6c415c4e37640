"""Pixel learning module (PLM): pseudo labels from clusters of CLIP's tokens, and prototypes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.clip import ImageFeatures
from zss_d2.modeling.methods.clip_zss.local.teaching import RegionTokens
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import FusedLabels
from zss_d2.modeling.methods.clip_zss.plm.synthesizer import (
    Synthesizer,
    mask_centroids,
    prototype_loss,
)
from zss_d2.modeling.methods.clip_zss.similarity import cosine_map

# Logit of a prototype that does not exist or belongs to another image: finite, so that losses stay
# finite, and its probability is 0 under softmax and sigmoid.
ABSENT = -1e4


class PixelTargets(NamedTuple):
    """What the pixel losses are taken on."""

    logits: Tensor  # x, (B, K + P, h, w)
    labels: Tensor  # F, (B, H, W)
    loss_bce: Tensor | None  # of the seen prototypes; None without one


class PLM(nn.Module):
    """x = cat(alpha cos(R, T_seen), beta cos(R, P_pseudo)) and F for it.

    The logits of a pixel are those of the pseudo prototypes of its own image.
    """

    def __init__(
        self,
        *,
        prototypes: str,
        synthesizer: Synthesizer | None,
        alpha: float,
        beta: float,
        detach: bool,
        bce: bool = True,
        local_memory: bool = False,
    ):
        """
        Args:
            prototypes: "synthesizer", "student", "teacher", see ``defaults.yaml``, or "oracle",
                which are text embeddings of unseen classes.
            synthesizer: for ``prototypes="synthesizer"``.
            alpha: scale of the similarity of seen prototypes to text in their BCE.
            beta: scale of the logits of pseudo prototypes.
            detach: no gradient through pseudo prototypes.
            bce: whether seen prototypes have a loss.
            local_memory: the synthesizer sees the regions' CLS tokens too.
        """
        super().__init__()
        self.prototypes = prototypes
        self.synthesizer = synthesizer
        self.alpha = alpha
        self.beta = beta
        self.detach = detach
        self.bce = bce
        self.local_memory = local_memory

    def forward(
        self,
        teacher: ImageFeatures,
        features: Tensor,
        seen_logits: Tensor,
        text: Tensor,
        fused: FusedLabels,
        *,
        local: RegionTokens | None = None,
        unseen_text: Tensor | None = None,
    ) -> PixelTargets:
        """
        Args:
            teacher: CLS (B, C) and dense tokens (B, C, h', w').
            features: R, (B, C, h, w).
            seen_logits: (B, K, h, w).
            text: T_seen, (K, C).
            fused: F.
            local: C_l, for ``local_memory``.
            unseen_text: (P, C), for ``prototypes="oracle"``.
        """
        num_seen, loss = len(text), None
        seen, pseudo, present = self.prototypes_of(
            teacher, features, num_seen, fused, local=local, unseen_text=unseen_text
        )
        if self.synthesizer is not None and self.bce:
            loss = prototype_loss(seen, text, present[:, :num_seen], self.alpha)
        pseudo_logits = prototype_logits(
            features, pseudo.detach() if self.detach else pseudo, present[:, num_seen:], self.beta
        )
        logits = torch.cat([seen_logits, pseudo_logits.to(seen_logits)], dim=1)
        return PixelTargets(logits, fused.labels, loss)

    def prototypes_of(
        self,
        teacher: ImageFeatures,
        features: Tensor,
        num_seen: int,
        fused: FusedLabels,
        *,
        local: RegionTokens | None = None,
        unseen_text: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Prototypes of the masks of F; arguments as of `forward`.

        Returns:
            of the K seen classes (B, K, C), of the regions (B, P, C); which masks are there,
            (B, K + P) bool.
        """
        centroids, present = mask_centroids(
            self._prototype_source(teacher.dense, features),
            fused.coarse,
            num_seen + fused.num_pseudo,
        )
        if self.synthesizer is not None:
            memory = (local.cls, local.present) if self.local_memory else ()
            centroids = self.synthesizer(centroids, teacher.cls, *memory)
        seen, pseudo = centroids[:, :num_seen], centroids[:, num_seen:]
        if self.prototypes == "oracle":
            pseudo = unseen_text.expand(len(features), -1, -1)
        return seen, pseudo, present

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
