"""Which regions are chosen, and what the teacher gets to see of each."""

import torch

from zss_d2.modeling.methods.clip_zss.local.views import (
    largest_regions,
    region_views,
    square_boxes,
)


def test_the_largest_regions_come_first_and_ties_by_id():
    labels = torch.tensor([[[2, 2, 0, -1]], [[1, 3, 3, 1]], [[-1, -1, -1, -1]]])
    regions = largest_regions(labels, 4, 2)
    assert regions.ids[0].tolist() == [2, 0]
    assert regions.ids[1].tolist() == [1, 3]
    assert regions.present.tolist() == [[True, True], [True, True], [False, False]]
    assert largest_regions(labels, 4, 9).ids.shape == (3, 4)
    assert largest_regions(labels, 4, 1).ids[:2].tolist() == [[2], [1]]


def box_of(mask: torch.Tensor) -> list[float]:
    rows, columns = mask.nonzero().T
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    half = max(bottom - top, right - left) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return [x - half, y - half, x + half, y + half]


def test_boxes_are_the_smallest_squares_around_a_mask():
    masks = torch.zeros(3, 9, 7, dtype=torch.bool)
    masks[0, 2:4, 1:6] = True
    masks[1, 8, 0] = True
    boxes = square_boxes(masks)
    for index in range(2):
        assert boxes[index].tolist() == box_of(masks[index])
    assert boxes[2].isfinite().all()


def two_masks():
    images = torch.rand(2, 3, 8, 8)
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 2:6, 2:6] = masks[1, :4, :8] = masks[2, 1:3, 4:8] = True
    return images, masks, torch.tensor([1, 0, 1])


def test_everything_outside_of_a_mask_is_filled():
    images, masks, owner = two_masks()
    fill = torch.tensor([[0.1, 0.2, 0.3], [5.0, 6.0, 7.0]])
    views = region_views(images, masks, owner, fill, size=8, tight=False)
    for index in range(3):
        colour = fill[owner[index]][:, None, None]
        expected = images[owner[index]].where(masks[index], colour)
        torch.testing.assert_close(views[index], expected)


def test_a_tight_view_is_the_square_around_the_mask():
    images, masks, owner = two_masks()
    fill = torch.zeros(2, 3)
    views = region_views(images, masks, owner, fill, size=4, tight=True)
    # A mask that is a square of the very size is copied.
    torch.testing.assert_close(views[0], images[1, :, 2:6, 2:6])
    # One twice as wide as high has fill above and below.
    torch.testing.assert_close(views[2, :, 1:3], images[1, :, 1:3, 4:8])
    assert not views[2, :, 0].any() and not views[2, :, 3].any()
    # One twice as large is averaged: no pixel is left out.
    mean = images[0, :, :4].unflatten(2, (4, 2)).mean(dim=3).unflatten(1, (2, 2)).mean(dim=2)
    torch.testing.assert_close(views[1, :, 1:3], mean)


def test_a_fill_bleeds_into_no_mask_when_sizes_change():
    images = torch.full((1, 3, 8, 8), 2.0)
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :, :4] = True
    owner, fill = torch.zeros(1, dtype=torch.long), torch.full((1, 3), 2.0)
    for tight in (False, True):
        views = region_views(images, masks, owner, fill, size=5, tight=tight)
        torch.testing.assert_close(views, torch.full((1, 3, 5, 5), 2.0))
