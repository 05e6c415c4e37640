"""The training label F: seen labels, and pseudo regions where nothing is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.fusion import UNLABELLED, Regions
from zss_d2.modeling.methods.clip_zss.plm.kmeans import count


class FusedLabels(NamedTuple):
    """F of a batch: `UNLABELLED`, a seen id, or the number of seen classes + a region's number.

    Regions are numbered 0, 1, ... in every image anew, so a pseudo id never stands for a class.
    """

    labels: Tensor  # (B, H, W)
    coarse: Tensor  # (B, h, w): the same at the size of the student's features
    num_pseudo: int  # most regions of one image
    regions: Tensor  # (B, h', w'), as they were found
    names: Tensor  # (B, N), id of F of every region + 1, `UNLABELLED` for one that gives no labels

    def at(self, targets: Tensor, inside: Tensor, size: Sequence[int]) -> Tensor:
        """F at another size, with the same ids.

        Args:
            targets, inside: of `fuse_labels`, (B, H, W).
            size: of the result.

        Returns:
            (B, *size).
        """
        targets, regions = resize_labels(targets, size), resize_labels(self.regions, size)
        free = (targets == UNLABELLED) & resize_labels(inside, size).bool()
        return _named(regions.where(free, UNLABELLED), targets, self.names)


def usable_regions(regions: Regions, min_tokens: int) -> Tensor:
    """Labels (B, h, w) of the regions, `UNLABELLED` where one has fewer than ``min_tokens``."""
    usable = regions.sizes >= min_tokens  # (B, M)
    flat = regions.labels.flatten(1)
    usable = usable.gather(1, flat.clamp(min=0))
    return flat.where(usable, UNLABELLED).view_as(regions.labels)


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
    found, regions = regions, resize_labels(regions, targets.shape[1:])
    number = int(regions.max()) + 2  # column 0 is that of UNLABELLED
    pseudo = regions.where((targets == UNLABELLED) & inside, UNLABELLED)
    coarse = resize_labels(pseudo, size)
    unlabelled, all_pixels, sampled = (
        count(x.flatten(1) + 1, number) for x in (pseudo, regions, coarse)
    )
    present = (sampled > 0) & (unlabelled >= min_unlabeled_fraction * all_pixels)
    present[:, 0] = False
    names = (present.cumsum(dim=1) - 1 + num_seen).where(present, UNLABELLED)

    return FusedLabels(
        _named(pseudo, targets, names),
        _named(coarse, resize_labels(targets, size), names),
        int(present.sum(dim=1).max()),
        found,
        names,
    )


def _named(ids: Tensor, targets: Tensor, names: Tensor) -> Tensor:
    """The name of each region id (B, H, W), or the target where there is none."""
    named = names.gather(1, ids.flatten(1) + 1).view_as(ids)
    return named.where(named != UNLABELLED, targets)


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of integer or boolean maps (B, H, W), as int64."""
    # Float holds every id that occurs exactly; interpolate takes no integers.
    resized = F.interpolate(labels[:, None].float(), tuple(size), mode="nearest-exact")
    return resized[:, 0].long()
