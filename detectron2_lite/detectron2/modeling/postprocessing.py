"""Predictions in the resolution that was asked for."""

from torch import Tensor
from torch.nn import functional as F


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Scores (K, H, W) -> (K, output_height, output_width), bilinear.

    ``img_size`` is the (height, width) of the network's input without its padding.
    """
    cropped = result[None, :, : img_size[0], : img_size[1]]
    size = (output_height, output_width)
    return F.interpolate(cropped, size=size, mode="bilinear", align_corners=False)[0]
