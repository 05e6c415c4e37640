"""ImageList pads at the bottom and right, and remembers sizes; ShapeSpec describes features."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList

SMALL = torch.full((3, 2, 5), 1.0)
TALL = torch.full((3, 4, 3), 2.0)


def test_padding_to_the_largest_sides() -> None:
    images = ImageList.from_tensors([SMALL, TALL], pad_value=-1.0)
    assert images.tensor.shape == (2, 3, 4, 5)
    assert images.image_sizes == [(2, 5), (4, 3)]
    assert images.tensor[0, 0].tolist() == [[1.0] * 5] * 2 + [[-1.0] * 5] * 2
    assert images.tensor[1, 2].tolist() == [[2.0] * 3 + [-1.0] * 2] * 4


@pytest.mark.parametrize(
    ("divisor", "shape"), [(0, (4, 5)), (1, (4, 5)), (4, (4, 8)), (32, (32, 32))]
)
def test_size_divisibility(divisor: int, shape: tuple[int, int]) -> None:
    images = ImageList.from_tensors([SMALL, TALL], size_divisibility=divisor)
    assert images.tensor.shape[-2:] == shape


def test_masks_keep_their_type_and_single_images_get_a_batch() -> None:
    mask = torch.ones((2, 3), dtype=torch.long)
    masks = ImageList.from_tensors([mask], size_divisibility=4, pad_value=255)
    assert masks.tensor.dtype == torch.long
    assert masks.tensor.tolist() == [
        [[1, 1, 1, 255], [1, 1, 1, 255], [255] * 4, [255] * 4],
    ]


def test_empty_list_and_mixed_channels_are_refused() -> None:
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([SMALL, torch.zeros(1, 2, 2)])


def test_shape_spec_fields() -> None:
    spec = ShapeSpec(channels=8, stride=4)
    assert (spec.channels, spec.height, spec.width, spec.stride) == (8, None, None, 4)
    assert spec == ShapeSpec(8, None, None, 4)
