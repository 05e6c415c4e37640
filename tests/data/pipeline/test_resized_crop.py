"""A crop of a resized image, of which little else is resized: the pixels of both steps in turn."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from PIL import Image

from zss_d2.config.defaults import add_zss_config
from zss_d2.data.pipeline import augmentation as A
from zss_d2.data.pipeline.mapper import IGNORED_WHEN_CROPPING, ZeroShotMapper


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


# Enlarged; made smaller, by more than 2 too, where the filter reaches further; one edge kept; tiny.
SIZES = [(75, 100), (301, 403), (31, 47), (10, 14), (64, 86), (60, 200), (9, 7), (1, 1)]


def windows(height: int, width: int, size: int) -> list[tuple[int, int, int, int]]:
    """(x0, y0, w, h) at the corners, in the middle, and the whole."""
    w, h = min(size, width), min(size, height)
    places = [(0, 0), (width - w, 0), (0, height - h), (width - w, height - h)]
    places += [((width - w) // 2, (height - h) // 2)]
    return [(x, y, w, h) for x, y in places] + [(0, 0, width, height)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [A.LabelledResize, A.OpenCVResizeTransform])
def test_a_window_is_that_of_the_resized_image(size, resize):
    image = noise(64, 86)
    transform = resize(64, 86, *size, Image.BILINEAR)
    whole = transform.apply_image(image)
    for x, y, w, h in windows(*size, 40):
        found = transform.resized_window(image, x, y, w, h)
        assert np.array_equal(found, whole[y : y + h, x : x + w])


@pytest.mark.parametrize("seed", range(40))
def test_a_window_of_any_size_is_that_of_the_resized_image(seed):
    rng = np.random.default_rng(seed)
    height, width, new_h, new_w = rng.integers(1, 300, 4).tolist()
    image = noise(height, width)
    transform = A.LabelledResize(height, width, new_h, new_w, Image.BILINEAR)
    x, y = int(rng.integers(new_w)), int(rng.integers(new_h))
    w, h = int(rng.integers(1, new_w - x + 1)), int(rng.integers(1, new_h - y + 1))
    expected = transform.apply_image(image)[y : y + h, x : x + w]
    assert np.array_equal(transform.resized_window(image, x, y, w, h), expected)


def step_by_step(cfg) -> list[T.Augmentation]:
    """The augmentations one after the other, the whole image resized, flips as Detectron2's."""
    resize = A.ResizeWithinBox(cfg.INPUT.RESIZE_BASE, cfg.INPUT.SCALE_RANGE)
    crop, flip = cfg.INPUT.CROP, cfg.INPUT.RANDOM_FLIP
    return [
        resize if cfg.INPUT.ANTIALIAS else A.OpenCVResize(resize),
        A.CategoryCrop("absolute", crop.SIZE, crop.SINGLE_CATEGORY_MAX_AREA, IGNORED_WHEN_CROPPING),
        T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"),
        *A.photometric_distortion(),
    ]


@pytest.mark.parametrize("flip", ["horizontal", "vertical"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_training_image_is_that_of_the_steps_in_turn(datasets, flip, antialias, bits):
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.INPUT.RESIZE_BASE, cfg.INPUT.ANTIALIAS = (512, 128), antialias
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE, cfg.INPUT.RANDOM_FLIP = True, [96, 96], flip
    mappers = ZeroShotMapper(cfg, True), ZeroShotMapper(cfg, True)
    mappers[1].augmentations = T.AugmentationList(step_by_step(cfg))
    for record in DatasetCatalog.get("zss_voc_train"):
        if bits == 16:
            labels = np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.uint16)
            Image.fromarray(labels).save(record["sem_seg_file_name"])
        for seed in range(4):
            found, after = [], []
            for mapper in mappers:
                np.random.seed(seed)
                found.append(mapper(record))
                after.append(np.random.uniform())
            assert torch.equal(found[0]["image"], found[1]["image"])
            assert torch.equal(found[0]["sem_seg"], found[1]["sem_seg"])
            assert after[0] == after[1]


def test_it_says_what_it_has_done():
    """The transforms that are returned do the same to other data."""
    image, labels = noise(50, 70), noise(50, 70)[..., 0] // 64
    steps = A.ResizedCrop(
        A.ResizeWithinBox((400, 100), (0.5, 2.0)), A.CategoryCrop("absolute", (48, 48), 0.75, 255)
    )
    augmented = T.AugInput(image, sem_seg=labels)
    done = T.AugmentationList([steps])(augmented)
    assert np.array_equal(done.apply_image(image), augmented.image)
    assert np.array_equal(done.apply_segmentation(labels), augmented.sem_seg)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_areas_by_hand(dtype):
    labels = np.array([[0, 2, 2], [255, 2, 0]], dtype)
    areas = A.label_areas(labels[:, :2])
    assert len(areas) == 256
    assert {i: n for i, n in enumerate(areas.tolist()) if n} == {0: 1, 2: 2, 255: 1}


@pytest.mark.parametrize(("horizontal", "mirror"), [(True, np.fliplr), (False, np.flipud)])
def test_a_flip_moves_all_data_alike(horizontal, mirror):
    image, labels = noise(6, 9), noise(6, 9)[..., 0].astype(np.uint16)
    flip = A.RandomFlip(1.0, horizontal=horizontal, vertical=not horizontal).get_transform(image)
    assert np.array_equal(flip.apply_image(image), mirror(image))
    assert flip.apply_image(image).flags.c_contiguous
    assert np.array_equal(flip.apply_segmentation(labels), mirror(labels))
    (corner,) = flip.apply_coords(np.array([[2.0, 1.0]])).tolist()
    assert corner == ([7.0, 1.0] if horizontal else [2.0, 5.0])


def test_no_flip_is_no_copy():
    assert isinstance(A.RandomFlip(0.0).get_transform(noise(2, 2)), T.NoOpTransform)
