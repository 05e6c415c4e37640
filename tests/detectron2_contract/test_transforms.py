"""Augmentations: geometry, labels, colour."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image


def painted(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and mask (H, W) of four quadrants; the image is ten times the label."""
    rows, columns = np.mgrid[:height, :width]
    mask = (2 * (rows >= height // 2) + (columns >= width // 2)).astype(np.uint8)
    return np.repeat(10 * mask[..., None], 3, axis=2), mask


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_move_together(seed):
    np.random.seed(seed)
    image, mask = painted(30, 40)
    augmentations = T.AugmentationList(
        [
            T.ResizeTransform(30, 40, 60, 80, interp=Image.NEAREST),
            T.RandomFlip(),
            T.RandomCrop("absolute", (24, 20)),
        ]
    )
    sample = T.AugInput(image, sem_seg=mask)
    transforms = augmentations(sample)
    assert sample.image.shape == (24, 20, 3)
    assert sample.sem_seg.shape == (24, 20)
    assert (sample.image == 10 * sample.sem_seg[..., None]).all()

    assert isinstance(transforms, T.TransformList)
    assert (transforms.apply_segmentation(mask) == sample.sem_seg).all()
    assert (transforms.apply_image(image) == sample.image).all()


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 512, 2048, (512, 683)),
        ((640, 480), 512, 2048, (683, 512)),
        ((100, 400), 50, 150, (38, 150)),
        ((375, 500), 512, 2048, (512, 683)),
    ],
)
def test_shortest_edge(size, short, longest, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size, short, longest) == expected
    image = np.zeros((*size, 3), np.uint8)
    resized = T.ResizeShortestEdge(short, longest).get_transform(image).apply_image(image)
    assert resized.shape == (*expected, 3)


def test_shortest_edge_is_drawn_with_both_ends():
    image = np.zeros((10, 10, 3), np.uint8)
    ranged = T.ResizeShortestEdge([4, 6], 100)
    np.random.seed(0)
    assert {ranged.get_transform(image).new_h for _ in range(40)} == {4, 5, 6}


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_resize_keeps_channels(channels):
    image = np.full((4, 6, *channels), 7, np.uint8)
    resized = T.ResizeTransform(4, 6, 8, 3).apply_image(image)
    assert resized.shape == (8, 3, *channels)
    assert resized.dtype == np.uint8
    assert (resized == 7).all()


def test_resize_invents_no_label():
    mask = np.array([[0, 255], [7, 0]], np.uint8)
    resize = T.ResizeTransform(2, 2, 4, 4)
    assert resize.apply_segmentation(mask).tolist() == [
        [0, 0, 255, 255],
        [0, 0, 255, 255],
        [7, 7, 0, 0],
        [7, 7, 0, 0],
    ]
    assert set(np.unique(resize.apply_image(mask))) > {0, 7, 255}


def test_flip():
    mask = np.array([[1, 2], [3, 4]], np.uint8)
    assert T.RandomFlip(1.0).get_transform(mask).apply_segmentation(mask).tolist() == [
        [2, 1],
        [4, 3],
    ]
    upside_down = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(mask)
    assert upside_down.apply_segmentation(mask).tolist() == [[3, 4], [1, 2]]
    assert isinstance(T.RandomFlip(0.0).get_transform(mask), T.NoOpTransform)
    with pytest.raises(ValueError, match="."):
        T.RandomFlip(vertical=True)


def test_random_crop_is_clipped_to_the_image():
    np.random.seed(0)
    image = np.arange(200, dtype=np.uint8).reshape(10, 20)
    crops = [T.RandomCrop("absolute", (4, 50)).get_transform(image) for _ in range(40)]
    assert {crop.apply_image(image).shape for crop in crops} == {(4, 20)}
    assert {crop.apply_image(image)[0, 0] // 20 for crop in crops} == set(range(7))


@pytest.mark.parametrize("ignored", [None, 255])
def test_category_area_constraint(ignored):
    image, mask = painted(40, 40)
    mask[:, ::2] = 255
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.6, ignored)
    for seed in range(20):
        np.random.seed(seed)
        labels = crop.get_transform(image, mask).apply_segmentation(mask)
        assert labels.shape == (20, 20)
        if ignored is not None:
            labels = labels[labels != ignored]
        _, areas = np.unique(labels, return_counts=True)
        assert len(areas) > 1
        assert areas.max() < 0.6 * labels.size


def test_category_area_constraint_gives_up_or_is_off():
    image, mask = painted(8, 8)
    one_class = np.zeros_like(mask)
    hopeless = T.RandomCrop_CategoryAreaConstraint("absolute", (4, 4), 0.5)
    assert hopeless.get_transform(image, one_class).apply_segmentation(mask).shape == (4, 4)
    off = T.RandomCrop_CategoryAreaConstraint("absolute", (4, 4), 1.0)
    assert off.get_transform(image, one_class).apply_segmentation(mask).shape == (4, 4)


def test_own_augmentation_receives_what_it_asks_for():
    class CropToLabel(T.Augmentation):
        def get_transform(self, image, sem_seg):
            rows, columns = np.nonzero(sem_seg == 3)
            return T.CropTransform(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)

    image, mask = painted(6, 6)
    sample = T.AugInput(image, sem_seg=mask)
    CropToLabel()(sample)
    assert sample.sem_seg.tolist() == [[3] * 3] * 3
    assert (sample.image == 30).all()

    class Greedy(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match="depth"):
        Greedy()(sample)


def test_transforms_are_accepted_as_augmentations():
    image = np.array([[1, 2, 3]], np.uint8)
    sample = T.AugInput(image)
    T.AugmentationList([T.HFlipTransform(3), T.RandomApply(T.HFlipTransform(3), 0.0)])(sample)
    assert sample.image.tolist() == [[3, 2, 1]]
    T.RandomApply(T.RandomFlip(1.0), 1.0)(sample)
    assert sample.image.tolist() == [[1, 2, 3]]
