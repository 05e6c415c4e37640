"""The training label F: seen labels, and pseudo regions where nothing is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.fusion import Regions
from zss_d2.modeling.methods.clip_zss.plm.kmeans import count

# Not the benchmark's ignore label, which may be as small as the number of classes and regions.
UNLABELLED = -1


class FusedLabels(NamedTuple):
    """F of a batch: `UNLABELLED`, a seen id, or the number of seen classes + a region's number.

    Regions are numbered 0, 1, ... in every image anew, so a pseudo id never stands for a class.
    """

    labels: Tensor  # (B, H, W)
    coarse: Tensor  # (B, h, w): the same at the size of the student's features
    num_pseudo: int  # most regions of one image


def usable_regions(regions: Regions, min_tokens: int) -> Tensor:
    """Labels (B, h, w) of the regions, `UNLABELLED` where one has fewer than ``min_tokens``."""
    usable = regions.sizes >= min_tokens  # (B, M)
    flat = regions.labels.flatten(1)
    return flat.where(usable.gather(1, flat), UNLABELLED).view_as(regions.labels)


def fuse_labels(
    targets: Tensor,
    regions: Tensor,
    inside: Tensor,
    num_seen: int,
    size: Sequence[int],
    min_unlabeled_fraction: float = 0.0,
) -> FusedLabels:
    """F = ground truth of seen classes + pseudo masks on unlabelled pixels.

    Args:
        targets: (B, H, W), seen ids or `UNLABELLED`.
        regions: (B, h', w'), ids from 0 on, or `UNLABELLED` for no region.
        inside: (B, H, W), False in the padding of an image, which gets no pseudo labels.
        size: (h, w) of the student's features. A region too thin to be sampled there has no
            features to make a prototype of and stays unlabelled.
        min_unlabeled_fraction: least share of a region's pixels without label; below it, the region
            is a labelled object and what is left of it, such as its border, stays unlabelled.
    """
    regions = resize_labels(regions, targets.shape[1:])
    number = int(regions.max()) + 2  # column 0 is that of UNLABELLED
    pseudo = regions.where((targets == UNLABELLED) & inside, UNLABELLED)
    coarse = resize_labels(pseudo, size)
    unlabelled, all_pixels, sampled = (
        count(x.flatten(1) + 1, number) for x in (pseudo, regions, coarse)
    )
    present = (sampled > 0) & (unlabelled >= min_unlabeled_fraction * all_pixels)
    present[:, 0] = False
    names = (present.cumsum(dim=1) - 1 + num_seen).where(present, UNLABELLED)

    def fuse(ids: Tensor, ground_truth: Tensor) -> Tensor:
        named = names.gather(1, ids.flatten(1) + 1).view_as(ids)
        return named.where(named != UNLABELLED, ground_truth)

    return FusedLabels(
        fuse(pseudo, targets),
        fuse(coarse, resize_labels(targets, size)),
        int(present.sum(dim=1).max()),
    )


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of integer or boolean maps (B, H, W), as int64."""
    # Float holds every id that occurs exactly; interpolate takes no integers.
    resized = F.interpolate(labels[:, None].float(), tuple(size), mode="nearest-exact")
    return resized[:, 0].long()
