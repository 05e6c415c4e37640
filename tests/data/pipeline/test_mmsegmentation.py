"""Colours and sizes as mmsegmentation 0.x, hence ZegCLIP's released code, computes them.

The references here are written from its documented arithmetic, pixel by pixel.
"""

from __future__ import annotations

import colorsys
import math

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from tests.conftest import ROOT
from zss_d2.config.defaults import add_zss_config
from zss_d2.data.pipeline import augmentation as A
from zss_d2.data.pipeline.mapper import ZeroShotMapper, inference_augmentations, train_augmentations


@pytest.fixture
def released():
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/zegclip_voc_released.yaml"))
    return cfg


def by_pixel(image: np.ndarray, change) -> np.ndarray:
    """Levels through ``change`` in single precision, clipped, without their fraction."""
    levels = [float(np.float32(change(np.float32(level)))) for level in range(256)]
    table = [math.floor(min(max(level, 0.0), 255.0)) for level in levels]
    return np.array([table[value] for value in image.ravel()], np.uint8).reshape(image.shape)


def random_image(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_levels_by_hand():
    image = np.array([[[0, 100, 250]]], np.uint8)
    assert A.add_to_levels(image, 10.7).tolist() == [[[10, 110, 255]]]
    assert A.add_to_levels(image, -31.5).tolist() == [[[0, 68, 218]]]
    # Not around the mean: black stays, and fractions are cut off.
    assert A.scale_levels(image, 0.75).tolist() == [[[0, 75, 187]]]
    assert A.scale_levels(image, 1.5).tolist() == [[[0, 150, 255]]]


@pytest.mark.parametrize("delta", [-32, -0.3, 0, 7.9, 31.99])
def test_brightness_adds(delta):
    image = random_image()
    expected = by_pixel(image, lambda level: level + np.float32(delta))
    assert np.array_equal(A.add_to_levels(image, delta), expected)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1, 1.2345, 1.4999])
def test_contrast_scales(factor):
    image = random_image()
    expected = by_pixel(image, lambda level: level * np.float32(factor))
    assert np.array_equal(A.scale_levels(image, factor), expected)


def in_hsv(image: np.ndarray, change) -> np.ndarray:
    """Pixels through ``change`` of hue, saturation and value in 0..1."""
    pixels = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in image.reshape(-1, 3)]
    changed = [colorsys.hsv_to_rgb(*change(*pixel)) for pixel in pixels]
    return np.array(changed).reshape(image.shape) * 255


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation_is_that_of_hsv(factor):
    image = random_image()
    expected = in_hsv(image, lambda h, s, v: (h, min(1, s * factor), v))
    changed = A.scale_hsv_saturation(image, factor).astype(float)
    # 180 steps of hue and 255 of saturation are all that 8 bits keep.
    assert np.abs(changed - expected).max() <= 6
    assert np.array_equal(changed.max(axis=-1), image.max(axis=-1))


@pytest.mark.parametrize("steps", [-18, -1, 0, 17])
def test_a_step_of_hue_is_two_degrees(steps):
    image = random_image()
    expected = in_hsv(image, lambda h, s, v: ((h + steps / 180) % 1, s, v))
    assert np.abs(A.step_hue(image, steps) - expected).max() <= 6


def test_full_turns_of_hue_by_hand():
    """Red, magenta (wraps past the end of the circle) and grey, 120 degrees on."""
    pure = np.array([[[255, 0, 0], [255, 0, 255], [9, 9, 9]]], np.uint8)
    assert A.step_hue(pure, 60).tolist() == [[[0, 255, 0], [255, 255, 0], [9, 9, 9]]]


def drawn(number: int) -> list[list[tuple]]:
    """The operations, with their strengths, of that many draws."""
    np.random.seed(0)
    image = random_image()
    chains = [A.MmsegmentationColours().get_transform(image).transforms for _ in range(number)]
    return [[(step.operation, step.strength) for step in chain] for chain in chains]


def test_each_distortion_is_drawn_half_of_the_time_and_contrast_first_or_last():
    chains = drawn(2000)
    ranges = {
        A.add_to_levels: (-32, 32),
        A.scale_levels: (0.5, 1.5),
        A.scale_hsv_saturation: (0.5, 1.5),
        A.step_hue: (-18, 17),
    }
    for operation, (low, high) in ranges.items():
        strengths = [x for chain in chains for other, x in chain if other is operation]
        assert 900 < len(strengths) < 1100
        assert low <= min(strengths) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(strengths) <= high
    assert {type(x) for chain in chains for other, x in chain if other is A.step_hue} == {int}
    orders = [[operation.__name__ for operation, _ in chain] for chain in chains]
    full = {tuple(order) for order in orders if len(order) == 4}
    rest = ("scale_hsv_saturation", "step_hue")
    assert full == {
        ("add_to_levels", "scale_levels", *rest),
        ("add_to_levels", *rest, "scale_levels"),
    }
    assert max(len(order) for order in orders) == 4


def test_distortion_leaves_labels_and_the_input_alone(released):
    released.INPUT.CROP.ENABLED, released.INPUT.RANDOM_FLIP = False, "none"
    released.INPUT.SCALE_RANGE, released.INPUT.RESIZE_BASE = (1.0, 1.0), (30, 20)
    augmentations = train_augmentations(released)
    assert isinstance(augmentations[-1], A.MmsegmentationColours)
    image, labels = random_image(), np.arange(600, dtype=np.uint8).reshape(20, 30)
    before, changed = image.copy(), 0
    for _ in range(30):
        augmented = T.AugInput(image, sem_seg=labels.copy())
        T.AugmentationList(augmentations)(augmented)
        assert np.array_equal(image, before)
        assert np.array_equal(augmented.sem_seg, labels)
        assert augmented.image.dtype == np.uint8
        changed += not np.array_equal(augmented.image, image)
    assert changed > 20


def slow_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel bilinear interpolation between the four nearest pixels, whatever the scale."""

    def between(size: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        where = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        low = np.floor(where).astype(int)
        return low, np.minimum(low + 1, size - 1), where - low

    top, bottom, y = between(image.shape[0], height)
    left, right, x = between(image.shape[1], width)
    y, x, image = y[:, None, None], x[:, None], image.astype(float)
    upper = image[top][:, left] * (1 - x) + image[top][:, right] * x
    lower = image[bottom][:, left] * (1 - x) + image[bottom][:, right] * x
    return upper * (1 - y) + lower * y


@pytest.mark.parametrize("size", [(7, 9), (20, 11), (55, 64)])
def test_images_shrink_without_antialiasing(size):
    image = random_image(40, 50)
    resize = A.OpenCVResize(A.ResizeWithinBox(size, (1.0, 1.0))).get_transform(image)
    changed = A.OpenCVResizeTransform(40, 50, *size).apply_image(image)
    assert np.abs(changed - slow_bilinear(image, *size)).max() <= 1
    assert isinstance(resize, A.OpenCVResizeTransform)


def test_stripes_stay_pure_only_without_antialiasing(released):
    """Every third pixel of stripes that are one pixel wide: averaged, they would be grey."""
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, ::2] = 255
    released.INPUT.MIN_SIZE_TEST = 20
    (resize,) = inference_augmentations(released)
    plain = resize.get_transform(stripes).apply_image(stripes)
    assert set(np.unique(plain)) == {0, 255}
    released.INPUT.ANTIALIAS = True
    (resize,) = inference_augmentations(released)
    smooth = resize.get_transform(stripes).apply_image(stripes)
    assert smooth[:, 2:-2].min() > 60
    assert smooth[:, 2:-2].max() < 200


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_are_the_nearest_of_opencv(dtype):
    labels = np.random.default_rng(1).integers(0, 200, (40, 50)).astype(dtype)
    resize = A.OpenCVResizeTransform(40, 50, 23, 71)
    rows, columns = np.arange(23) * 40 // 23, np.arange(71) * 50 // 71
    changed = resize.apply_segmentation(labels)
    assert changed.dtype == dtype
    assert np.array_equal(changed, labels[rows][:, columns])


def released_size(height: int, width: int) -> tuple[int, int]:
    """Shorter edge 512, by way of a box of the image's own aspect, rounded half up."""
    box = (512 * height / width, 512) if height > width else (512, 512 * width / height)
    factor = min(max(box) / max(height, width), min(box) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def test_the_shorter_edge_of_a_test_image_is_512_at_any_aspect(released):
    (resize,) = inference_augmentations(released)
    rng = np.random.default_rng(0)
    sizes = [(100, 600), (2000, 90), (375, 500), *rng.integers(20, 900, (300, 2)).tolist()]
    for height, width in sizes:
        chosen = resize.get_transform(np.empty((height, width, 3), np.uint8))
        assert (chosen.new_h, chosen.new_w) == released_size(height, width)
        assert min(chosen.new_h, chosen.new_w) == 512


def test_the_defaults_are_those_of_detectron2(datasets, make_cfg):
    cfg = make_cfg()
    assert (cfg.INPUT.ANTIALIAS, cfg.INPUT.COLOR_STYLE, cfg.INPUT.CROP.PAD) == (
        True,
        "detectron2",
        False,
    )
    assert isinstance(inference_augmentations(cfg)[0], T.ResizeShortestEdge)
    assert isinstance(train_augmentations(cfg)[0], A.ResizeWithinBox)


def test_a_record_passes_through_the_released_recipe(datasets, released):
    mapper = ZeroShotMapper(released, True)
    output = mapper(DatasetCatalog.get("zss_voc_train")[0])
    assert output["image"].dtype == torch.uint8
    assert output["image"].shape[1:] == output["sem_seg"].shape
    assert max(output["sem_seg"].shape) <= 512
