"""CLS tokens out of one pass: all patches give the tower's own, a region hides the others."""

from __future__ import annotations

import pytest
import torch

from zss_d2.clip.towers import build_clip_towers


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return build_clip_towers("zss-tiny", "").image.eval()


def kept(tower, images, blocks: int):
    tower.kept_blocks = blocks
    features = tower(images)
    tower.kept_blocks = 0
    return features


def test_cls_alone_is_that_of_the_whole_tower(tower):
    images = torch.randn(3, 3, 64, 48)
    torch.testing.assert_close(tower.cls(images), tower(images).cls, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_region_of_all_patches_has_the_cls_of_the_image(tower, blocks):
    features = kept(tower, torch.randn(2, 3, 64, 64), blocks)
    everything = torch.ones(2, 3, features.dense[0, 0].numel(), dtype=torch.bool)
    got = tower.region_cls(features.entered, everything)
    for region in got.unbind(dim=1):
        torch.testing.assert_close(region, features.cls, atol=1e-5, rtol=1e-4)


def test_nothing_is_kept_unless_it_is_asked_for(tower):
    assert tower(torch.randn(1, 3, 64, 64)).entered == ()


@pytest.mark.parametrize("blocks", [1, 2])
def test_what_is_outside_of_a_region_does_not_matter_in_these_blocks(tower, blocks):
    features = kept(tower, torch.randn(1, 3, 64, 64), blocks)
    number = features.dense[0, 0].numel()
    masks = torch.zeros(1, 2, number, dtype=torch.bool)
    masks[:, 0, : number // 2] = masks[:, 1, number // 2 :] = True
    expected = tower.region_cls(features.entered, masks)
    other = [tokens.clone() for tokens in features.entered]
    for tokens in other:
        tokens[:, 1 + number // 2 :] = torch.randn_like(tokens[:, 1 + number // 2 :])
    got = tower.region_cls(other, masks)
    torch.testing.assert_close(got[:, 0], expected[:, 0])
    assert not torch.allclose(got[:, 1], expected[:, 1])


def test_regions_do_not_see_each_other_and_an_empty_one_is_finite(tower):
    features = kept(tower, torch.randn(2, 3, 64, 64), 2)
    masks = torch.rand(2, 4, features.dense[0, 0].numel()) < 0.3
    masks[:, 3] = False
    together = tower.region_cls(features.entered, masks)
    assert together.isfinite().all()
    for region in range(4):
        alone = tower.region_cls(features.entered, masks[:, region : region + 1])
        torch.testing.assert_close(alone[:, 0], together[:, region], atol=1e-5, rtol=1e-4)


def test_in_half_precision_it_is_about_the_same(tower):
    images = torch.randn(2, 3, 64, 64)
    features = kept(tower, images, 2)
    masks = torch.rand(2, 2, features.dense[0, 0].numel()) < 0.5
    exact = tower.region_cls(features.entered, masks)
    with torch.autocast("cpu", torch.bfloat16):
        half = tower.region_cls(kept(tower, images, 2).entered, masks)
    torch.testing.assert_close(half.float(), exact, atol=0.1, rtol=0.1)
