"""Which pixels of a batch are which pseudo region: from CLIP's tokens to F."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zss_d2.modeling.methods.clip_zss.plm.fusion import multi_scale_regions
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import (
    UNLABELLED,
    FusedLabels,
    fuse_labels,
    resize_labels,
    usable_regions,
)


class RegionSettings(NamedTuple):
    """How pseudo regions are found; see `defaults.yaml`."""

    windows: Sequence[int]
    iterations: int
    threshold: float
    min_tokens: int
    min_unlabeled_fraction: float
    unannotated_only: bool = False

    def find(self, dense: Tensor, unannotated: Tensor) -> Tensor:
        """Region ids (B, h, w) of CLIP's dense tokens; `UNLABELLED` where there is none to use.

        Args:
            dense: (B, C, h, w).
            unannotated: (B, H, W) bool, pixels of an image without a seen label. A token is what
                its middle pixel is.
        """
        tokens = self.taking_part(unannotated, dense)
        regions = multi_scale_regions(
            dense, self.windows, self.iterations, self.threshold, unannotated=tokens
        )
        return usable_regions(regions, self.min_tokens)

    def taking_part(self, unannotated: Tensor, dense: Tensor) -> Tensor | None:
        """The tokens (B, h, w) that are clustered; None: all. Arguments as of `find`."""
        if not self.unannotated_only:
            return None
        return resize_labels(unannotated, dense.shape[2:]).bool()

    @torch.no_grad()
    def label(
        self, dense: Tensor, targets: Tensor, inside: Tensor, num_seen: int, size: Sequence[int]
    ) -> FusedLabels:
        """F of a batch.

        Args:
            dense: CLIP's dense tokens (B, C, h', w').
            targets: (B, H, W), seen ids or `UNLABELLED`.
            inside: (B, H, W), False in the padding.
            num_seen: pseudo ids begin there.
            size: (h, w) of the student's features.
        """
        regions = self.find(dense, (targets == UNLABELLED) & inside)
        return fuse_labels(targets, regions, inside, num_seen, size, self.min_unlabeled_fraction)
