"""The mapper: what reaches training, what reaches testing, and what each bad input says."""

from __future__ import annotations

import pickle
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from fvcore.transforms.transform import BlendTransform
from PIL import Image

from zss_d2.config.defaults import add_zss_config
from zss_d2.data.pipeline import augmentation as A
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec.custom import register_custom
from zss_d2.errors import ZssError

UNSEEN_IDS = {15, 16, 17, 18, 19}


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.INPUT.RESIZE_BASE = (512, 128)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.SIZE = [96, 96]
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg


@pytest.fixture
def plain():
    """A training mapper without augmentations, so that labels can be compared pixel by pixel."""
    return ZeroShotMapper(is_train=True, augmentations=[])


def _labels_seen(mapper: ZeroShotMapper, dataset: str, times: int = 3) -> set[int]:
    records = DatasetCatalog.get(dataset)
    return {
        value
        for record in records
        for _ in range(times)
        for value in mapper(record)["sem_seg"].unique().tolist()
    }


def test_no_unseen_label_passes_in_the_inductive_setting(cfg, datasets):
    cfg.ZERO_SHOT.SETTING = "inductive"
    values = _labels_seen(ZeroShotMapper(cfg, True), "zss_voc_train")
    assert not values & UNSEEN_IDS
    assert values <= {*range(15), 255}
    assert len(values) > 10


def test_the_supervised_setting_keeps_unseen_labels(cfg, datasets):
    cfg.ZERO_SHOT.SETTING = "supervised"
    assert _labels_seen(ZeroShotMapper(cfg, True), "zss_voc_train") >= UNSEEN_IDS


def test_only_unseen_pixels_change(plain, datasets):
    everything = ZeroShotMapper(is_train=True, augmentations=[], hide_unseen_labels=False)
    for record in DatasetCatalog.get("zss_voc_train"):
        full, hidden = everything(record)["sem_seg"], plain(record)["sem_seg"]
        unseen = (full >= 15) & (full < 20)
        assert unseen.any()
        assert (hidden[unseen] == 255).all()
        assert torch.equal(hidden[~unseen], full[~unseen])


def test_augmentations_never_see_unseen_labels(datasets):
    sampled = set()

    class Spy(T.Augmentation):
        def get_transform(self, image, sem_seg):
            sampled.update(np.unique(sem_seg).tolist())
            return T.NoOpTransform()

    mapper = ZeroShotMapper(is_train=True, augmentations=[Spy()])
    for record in DatasetCatalog.get("zss_voc_train"):
        mapper(record)
    assert sampled
    assert not sampled & UNSEEN_IDS


def test_a_leaky_oracle_gets_all_labels_beside_the_same_training_pair(cfg, datasets):
    for record in DatasetCatalog.get("zss_voc_train")[:4]:
        outputs = []
        for oracle in ((), ("regions",)):
            cfg.ZERO_SHOT.LEAKY_ORACLE = oracle
            np.random.seed(1)
            outputs.append(ZeroShotMapper(cfg, True)(record))
        plain, leaky = outputs
        truth = leaky.pop("leaky_oracle_sem_seg")
        assert set(plain) == set(leaky)
        assert torch.equal(plain["image"], leaky["image"])
        assert torch.equal(plain["sem_seg"], leaky["sem_seg"])
        unseen = (truth >= 15) & (truth < 20)
        assert torch.equal(plain["sem_seg"], truth.where(~unseen, torch.tensor(255)))


def test_training_output(cfg, datasets):
    record = DatasetCatalog.get("zss_voc_train")[0]
    before = dict(record)
    output = ZeroShotMapper(cfg, True)(record)
    assert record == before
    width, height = Image.open(record["file_name"]).size
    assert (output["height"], output["width"]) == (height, width)
    assert output["image_id"] == record["image_id"]
    assert output["image"].dtype == torch.uint8
    assert output["sem_seg"].dtype == torch.int64
    assert output["image"].shape == (3, *output["sem_seg"].shape)
    assert max(output["sem_seg"].shape) <= 96
    assert "vocabulary" not in output


def test_image_and_mask_move_together(cfg, datasets):
    """A picture painted by its own mask must still be so after scaling, cropping and flipping."""
    record = DatasetCatalog.get("zss_voc_train")[0]
    labels = np.zeros((120, 160), np.uint8)
    labels[30:90, 20:70], labels[60:, 110:] = 5, 12
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    record["file_name"] = str(Path(record["file_name"]).with_suffix(".png"))
    Image.fromarray(np.stack([labels * 20] * 3, axis=-1)).save(record["file_name"])
    cfg.INPUT.COLOR_AUG = False
    mapper = ZeroShotMapper(cfg, True)
    for _ in range(20):
        output = mapper(record)
        expected = output["sem_seg"] * 20
        # Bilinear and nearest resizing differ along the edges of the rectangles only.
        wrong = (output["image"][0].long() - expected).abs() > 60
        assert wrong.float().mean() < 0.06


def test_test_output_keeps_the_size_and_brings_the_vocabulary(cfg, datasets):
    record = DatasetCatalog.get("zss_voc_val")[0]
    Path(record["sem_seg_file_name"]).write_bytes(b"must never be opened")
    output = ZeroShotMapper(cfg, False)(record)
    assert "sem_seg" not in output
    assert output["vocabulary"] == tuple(MetadataCatalog.get("zss_voc_val").stuff_classes)
    assert output["image"].shape == (3, output["height"], output["width"])
    pixels = np.asarray(Image.open(record["file_name"])).transpose(2, 0, 1)
    assert np.array_equal(output["image"].numpy(), pixels)


def test_test_images_are_resized_only_on_request(cfg, datasets):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 1000
    record = DatasetCatalog.get("zss_voc_val")[0]
    output = ZeroShotMapper(cfg, False)(record)
    assert min(output["image"].shape[1:]) == 64
    assert (output["width"], output["height"]) == Image.open(record["file_name"]).size


def test_switches_of_the_recipe(cfg):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.RANDOM_FLIP, cfg.INPUT.COLOR_AUG = False, "none", False
    (only,) = ZeroShotMapper(cfg, True).augmentations.augs
    assert isinstance(only, A.ResizeWithinBox)


@pytest.mark.parametrize(
    ("flip", "mirrored"), [("none", []), ("horizontal", [np.fliplr]), ("vertical", [np.flipud])]
)
def test_images_are_flipped_as_asked(cfg, flip, mirrored):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.COLOR_AUG, cfg.INPUT.RANDOM_FLIP = False, False, flip
    cfg.INPUT.RESIZE_BASE, cfg.INPUT.SCALE_RANGE = (4, 4), (1.0, 1.0)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    possible = [image, *(mirror(image) for mirror in mirrored)]
    sampled = set()
    for _ in range(20):
        augmented = T.AugInput(image.copy(), sem_seg=image[..., 0].copy())
        ZeroShotMapper(cfg, True).augmentations(augmented)
        assert np.array_equal(augmented.image[..., 0], augmented.sem_seg)
        sampled |= {i for i, x in enumerate(possible) if np.array_equal(augmented.image, x)}
        assert any(np.array_equal(augmented.image, x) for x in possible)
    assert len(sampled) == len(possible)


def test_a_mapper_survives_the_way_to_a_worker_process(cfg, datasets):
    mapper = ZeroShotMapper(cfg, True)
    record = DatasetCatalog.get("zss_voc_train")[1]
    np.random.seed(5)
    here = mapper(record)
    there_mapper = pickle.loads(pickle.dumps(mapper))
    np.random.seed(5)
    there = there_mapper(record)
    assert torch.equal(here["image"], there["image"])
    assert torch.equal(here["sem_seg"], there["sem_seg"])


def _error(mapper: ZeroShotMapper, record: dict) -> str:
    with pytest.raises(ZssError) as caught:
        mapper(record)
    return str(caught.value)


def test_a_mask_value_without_meaning_is_named(plain, datasets):
    record = DatasetCatalog.get("zss_voc_train")[0]
    labels = np.array(Image.open(record["sem_seg_file_name"]))
    labels[0, :3] = 77
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    message = _error(plain, record)
    assert f"{record['sem_seg_file_name']}: value 77 (3 pixels) outside 0..19" in message
    assert "move that prepared copy elsewhere and run `python datasets/prepare_voc.py`" in message


@pytest.mark.parametrize("mapped", [False, True])
def test_what_to_do_about_a_value_without_meaning(plain, yard, mapped):
    text = yard.read_text()
    mapping = "raw_to_train: {0: 0, 1: 1, 2: 2, 3: 3}\nsplits:" if mapped else "splits:"
    yard.write_text(text.replace("splits:", mapping))
    register_custom([yard])
    (record, *_) = DatasetCatalog.get("zss_yard_train")
    Image.fromarray(np.full((96, 96), 77, np.uint8)).save(record["sem_seg_file_name"])
    message = _error(plain, record)
    remedy = f"say in {yard} what raw_to_train" if mapped else f"give raw_to_train in {yard}"
    assert f"; correct the mask, or {remedy}" in message
    assert "delete" not in message


def test_a_16_bit_mask_is_not_clamped(plain, datasets):
    record = DatasetCatalog.get("zss_voc_train")[0]
    labels = np.array(Image.open(record["sem_seg_file_name"])).astype(np.uint16)
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    assert plain(record)["sem_seg"].max() == 255
    labels[0, 0] = 300
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    assert "value 300 (1 pixels)" in _error(plain, record)


def test_16_bit_labels_survive_the_augmentations(cfg, datasets):
    record = DatasetCatalog.get("zss_voc_train")[0]
    labels = np.array(Image.open(record["sem_seg_file_name"])).astype(np.uint16)
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    output = ZeroShotMapper(cfg, True)(record)["sem_seg"]
    assert output.dtype == torch.int64
    assert set(output.unique().tolist()) <= set(np.unique(labels).tolist())


def test_a_size_mismatch_names_both_files(plain, datasets):
    record = DatasetCatalog.get("zss_voc_train")[0]
    Image.new("L", (7, 5)).save(record["sem_seg_file_name"])
    message = _error(plain, record)
    assert record["sem_seg_file_name"] in message
    assert record["file_name"] in message
    assert "7x5" in message


@pytest.mark.parametrize(("key", "kind"), [("file_name", "image"), ("sem_seg_file_name", "mask")])
def test_unreadable_and_missing_files_are_named(plain, datasets, key, kind):
    record = DatasetCatalog.get("zss_voc_train")[0]
    path = Path(record[key])
    path.write_bytes(path.read_bytes()[:200])
    message = _error(plain, record)
    assert message.startswith(f"{path}: ")
    assert f"unreadable {kind}" in message
    path.unlink()
    assert f"{path}: the {kind} is missing" in _error(plain, record)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 200), (100, 200)), ((50, 100), (100, 200)), ((100, 800), (50, 400))],
)
def test_resize_fits_the_image_into_the_box(size, expected):
    augmentation = A.ResizeWithinBox((400, 100), (1.0, 1.0))
    image = np.zeros((*size, 3), np.uint8)
    assert augmentation.get_transform(image).apply_image(image).shape[:2] == expected


def test_resize_draws_its_scale_from_the_range():
    augmentation = A.ResizeWithinBox((2048, 512), (0.5, 2.0))
    image = np.zeros((512, 600, 3), np.uint8)
    transforms = [augmentation.get_transform(image) for _ in range(300)]
    heights = [transform.new_h for transform in transforms]
    assert 256 <= min(heights) < 300
    assert 980 < max(heights) <= 1024


@pytest.mark.parametrize("size", [(40, 60), (97, 31), (300, 200)])
def test_wide_labels_are_resized_as_8_bit_ones(size):
    labels = np.random.default_rng(0).integers(0, 200, (80, 50)).astype(np.uint8)
    resize = A.LabelledResize(80, 50, *size)
    expected = resize.apply_segmentation(labels)
    assert expected.shape == size
    wide = resize.apply_segmentation(labels.astype(np.uint16) + 60000)
    assert np.array_equal(wide.astype(np.int64) - 60000, expected)


@pytest.mark.parametrize("limit", [0.4, 0.75, 1.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_the_fast_crop_makes_the_same_choices(limit, dtype):
    rng = np.random.default_rng(0)
    for seed in range(40):
        labels = np.full((60, 80), 255, dtype)
        for value in range(4):
            top, left = rng.integers(0, 50, 2)
            labels[top : top + 25, left : left + 30] = value
        image = np.zeros((60, 80, 3), np.uint8)
        windows = []
        for crop in (A.CategoryCrop, T.RandomCrop_CategoryAreaConstraint):
            np.random.seed(seed)
            chosen = crop("absolute", (32, 100), limit, 255).get_transform(image, labels)
            windows.append((chosen.x0, chosen.y0, chosen.w, chosen.h, np.random.uniform()))
        assert windows[0] == windows[1]


def test_hue_turns_colours_and_leaves_grey():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    turned = A.turn_hue(image, 120).astype(int)
    expected = np.array([[[0, 255, 0], [0, 0, 255], [255, 0, 0], [90, 90, 90]]])
    assert np.abs(turned - expected).max() <= 6
    back = A.turn_hue(turned.astype(np.uint8), -120).astype(int)
    assert np.abs(back - image).max() <= 6
    assert np.abs(A.turn_hue(image, 0).astype(int) - image).max() <= 6


@pytest.mark.parametrize(
    ("operation", "blended_with"),
    [
        (A.brightness, lambda image: 0),
        (A.contrast, lambda image: image.mean()),
        (A.saturation, lambda image: image.dot([0.299, 0.587, 0.114])[..., None]),
    ],
)
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.5])
def test_fast_colours_equal_the_slow_ones_of_detectron2(operation, blended_with, factor):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    slow = BlendTransform(blended_with(image), 1 - factor, factor).apply_image(image).astype(float)
    fast = operation(image, factor)
    assert fast.dtype == np.uint8
    # One of them rounds, the other cuts off.
    assert np.abs(fast - slow).max() <= 1


def test_colours_leave_labels_and_the_input_alone():
    image = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    before = image.copy()
    labels = np.arange(16).reshape(4, 4)
    for operation in (A.brightness, A.contrast, A.saturation, A.turn_hue):
        transform = A.ColourTransform(operation, 0.7)
        transform.apply_image(image)
        assert np.array_equal(image, before)
        assert transform.apply_segmentation(labels) is labels


def test_photometric_distortion_changes_colours_and_nothing_else():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    labels = np.arange(72, dtype=np.uint8).reshape(8, 9)
    changed = 0
    for _ in range(20):
        augmented = T.AugInput(image.copy(), sem_seg=labels.copy())
        T.AugmentationList(A.photometric_distortion())(augmented)
        assert augmented.image.shape == image.shape
        assert augmented.image.dtype == np.uint8
        assert np.array_equal(augmented.sem_seg, labels)
        changed += not np.array_equal(augmented.image, image)
    assert changed >= 15
