"""CLS tokens of regions, and InfoNCE among the regions of an image, against loops."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip.towers import build_clip_towers
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.local.teaching import (
    LocalSettings,
    RegionTeacher,
    at_ids,
    fill_colour,
    local_info_nce,
)
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED, fuse_labels
from zss_d2.modeling.methods.clip_zss.teacher import Teacher

SEEN = 3


def slow_loss(student, teacher, present, temperature):
    per_image = []
    for image in range(len(student)):
        own = [r for r in range(student.shape[1]) if present[image, r]]
        terms = []
        for r in own:
            cosines = [F.cosine_similarity(student[image, r], teacher[image, s], 0) for s in own]
            logits = [float(c) / temperature for c in cosines]
            total = sum(math.exp(x) for x in logits)
            terms.append(-math.log(math.exp(logits[own.index(r)]) / total))
        per_image.append(sum(terms) / len(terms) if terms else 0.0)
    return sum(per_image) / len(per_image)


def some_regions(batch: int = 4):
    present = torch.rand(batch, 5) < 0.6
    present[1], present[2] = False, torch.eye(5, dtype=torch.bool)[0]
    return torch.randn(batch, 5, 6), torch.randn(batch, 5, 6), present


def test_the_loss_equals_the_slow_reference():
    student, teacher, present = some_regions()
    got = local_info_nce(student, teacher, present, 0.2)
    assert float(got) == pytest.approx(slow_loss(student, teacher, present, 0.2), rel=1e-5)


def test_images_without_two_regions_cost_nothing_and_keep_the_graph():
    student, teacher, present = some_regions(3)
    present[0] = False
    student.requires_grad_()
    loss = local_info_nce(student, teacher, present, 0.07)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.isfinite().all()
    assert not student.grad.abs().max() > 1e-6


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch():
    """Each has as many images; the number of regions may differ, and none is exchanged."""
    student, teacher, present = some_regions(6)
    whole = local_info_nce(student, teacher, present, 0.1)
    halves = [
        local_info_nce(student[part], teacher[part], present[part], 0.1)
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_an_absent_slot_is_no_negative():
    student, teacher, present = some_regions()
    expected = local_info_nce(student, teacher, present, 0.1)
    teacher[~present], student[~present] = 7.0, -3.0
    torch.testing.assert_close(local_info_nce(student, teacher, present, 0.1), expected)


def test_half_precision_outputs_give_a_loss_in_single_precision():
    student, teacher, present = some_regions()
    assert local_info_nce(student.half(), teacher.half(), present, 0.1).dtype == torch.float32


def test_rows_at_ids():
    values, ids = torch.randn(2, 5, 3), torch.tensor([[4, 0], [1, 1]])
    expected = torch.stack([values[0, [4, 0]], values[1, [1, 1]]])
    assert torch.equal(at_ids(values, ids), expected)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    towers = build_clip_towers("zss-tiny", "")
    statistics = {"pixel_mean": (100.0, 120.0, 90.0), "pixel_std": (50.0, 60.0, 70.0)}
    student = {"student_mean": (0.0, 0.0, 0.0), "student_std": (1.0, 1.0, 1.0)}
    return Teacher(towers.image, **statistics, **student)


def scene(batch: int = 3):
    """Images with a labelled left half and, but for the last, two regions right."""
    images = 255 * torch.rand(batch, 3, 64, 64)
    targets = torch.full((batch, 64, 64), UNLABELLED)
    targets[:, :, :32] = 1
    targets[-1] = 0
    regions = torch.zeros(batch, 4, 4, dtype=torch.long)
    regions[:, 2:] = 1
    inside = torch.ones_like(targets, dtype=torch.bool)
    return images, targets, inside, fuse_labels(targets, regions, inside, SEEN, (16, 16))


def tokens_of(teacher: Teacher, settings: LocalSettings, batch: int = 3):
    images, targets, inside, fused = scene(batch)
    maker = RegionTeacher(teacher, settings)
    seen = teacher(images)
    number = SEEN + fused.num_pseudo
    rest = (images, fused, targets, inside, number, contextlib.nullcontext)
    found = maker.tokens(teacher, seen, *rest)
    teacher.tower.module.kept_blocks = 0
    return images, fused, found


@pytest.mark.parametrize("size", [0, 32])
@pytest.mark.parametrize("fill", ["mean", "image", "black", "white"])
def test_a_token_is_the_cls_of_the_image_without_the_rest(teacher, fill, size):
    settings = LocalSettings(fill=fill, size=size, max_regions=3)
    images, fused, found = tokens_of(teacher, settings)
    # The labelled half is the largest; the last image is of one class.
    assert found.ids[0].tolist() == [1, SEEN, SEEN + 1]
    assert found.present.tolist() == [[True] * 3, [True] * 3, [True, False, False]]
    colours = {
        "mean": torch.tensor([100.0, 120.0, 90.0]),
        "black": torch.zeros(3),
        "white": torch.full((3,), 255.0),
    }
    for image in range(2):
        for slot in range(3):
            mask = fused.labels[image] == found.ids[image, slot]
            colour = colours.get(fill, images[image].mean(dim=(1, 2)))
            if size:
                small = F.interpolate(
                    images[image : image + 1], [size, size], mode="bilinear", antialias=True
                )[0]
                shown = small.where(mask[::2, ::2], colour[:, None, None])
            else:
                shown = images[image].where(mask, colour[:, None, None])
            expected = teacher.tower.module(teacher.normalised(shown[None])).cls[0]
            torch.testing.assert_close(found.cls[image, slot], expected, atol=1e-4, rtol=1e-3)
    assert not found.cls[2, 1:].any()


def test_a_batch_without_any_region_needs_no_pass(teacher):
    images = torch.rand(2, 3, 64, 64)
    targets = torch.full((2, 64, 64), UNLABELLED)
    inside = torch.ones_like(targets, dtype=torch.bool)
    fused = fuse_labels(targets, targets[:, ::16, ::16], inside, SEEN, (16, 16))
    maker = RegionTeacher(teacher, LocalSettings())
    rest = (images, fused, targets, inside, SEEN, contextlib.nullcontext)
    found = maker.tokens(teacher, teacher(images), *rest)
    assert not found.present.any() and not found.cls.any()


def test_tight_views_make_other_tokens_of_the_same_regions(teacher):
    loose = tokens_of(teacher, LocalSettings(size=64, max_regions=3))[2]
    tight = tokens_of(teacher, LocalSettings(size=64, tight=True, max_regions=3))[2]
    assert torch.equal(loose.present, tight.present)
    assert tight.cls.isfinite().all()
    assert not torch.allclose(loose.cls[0], tight.cls[0])


@pytest.mark.parametrize("blocks", [1, 2])
def test_by_attention_one_pass_gives_the_tokens_of_all_regions(teacher, blocks):
    settings = LocalSettings(cls="attention", blocks=blocks, max_regions=3)
    images, fused, found = tokens_of(teacher, settings)
    assert found.present.tolist() == [[True] * 3, [True] * 3, [True, False, False]]
    tower = teacher.tower.module
    tower.kept_blocks = blocks
    entered = teacher(images).entered
    tower.kept_blocks = 0
    side = int((entered[0].shape[1] - 1) ** 0.5)
    step = 64 // side
    labels = fused.labels[:, step // 2 :: step, step // 2 :: step].flatten(1)
    for slot in range(3):
        mask = labels == found.ids[:, slot, None]
        expected = tower.region_cls(entered, mask[:, None])[:, 0]
        for image in range(3):
            if found.present[image, slot]:
                torch.testing.assert_close(found.cls[image, slot], expected[image])


def test_the_mean_colour_of_an_image_leaves_out_its_padding(teacher):
    images = torch.zeros(1, 3, 4, 4)
    images[..., :2] = 3.0
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[..., :2] = True
    assert fill_colour("image", teacher, images, inside).tolist() == [[3, 3, 3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LocalSettings(size=50), "LOCAL.SIZE is 50, no multiple of the patch"),
        (LocalSettings(cls="attention", blocks=99), "LOCAL.BLOCKS is 99, but the tower has"),
    ],
)
def test_what_the_tower_cannot_do_names_the_key(teacher, settings, message):
    with pytest.raises(ZssError, match=message):
        RegionTeacher(teacher, settings)
