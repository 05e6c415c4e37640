import pytest
import torch
from detectron2.modeling import build_model

from tests.modeling.clip_zss.test_clip_zss import TINY
from tests.modeling.method_tester import batch
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.clip_zss.teacher_cache import CachedTeacher

WHOLE_IMAGES = (
    *("INPUT.CROP.ENABLED", False, "INPUT.COLOR_AUG", False, "INPUT.SCALE_RANGE", (1.0, 1.0)),
)


@pytest.fixture
def cached(make_cfg, tmp_path):
    """Build the teacher of a model with a cache in ``tmp_path``."""

    def build(*overrides):
        cfg = make_cfg(
            *TINY, *WHOLE_IMAGES, "MODEL.CLIP_ZSS.TEACHER_CACHE", str(tmp_path), *overrides
        )
        torch.manual_seed(0)
        return build_model(cfg).learner.teacher

    return build


@pytest.fixture
def asked():
    """How many images CLIP has been asked about, call by call."""
    numbers = []

    def spy(teacher):
        real = teacher.teacher.forward
        teacher.teacher.forward = lambda images: numbers.append(len(images)) or real(images)
        return teacher

    spy.numbers = numbers
    return spy


def test_an_image_is_asked_about_once(cached, asked):
    teacher, images = asked(cached()), torch.randn(3, 3, 32, 48)
    first = teacher(images[:2])
    both = teacher(images[[2, 1, 0]])
    again = teacher(images[:2])
    assert asked.numbers == [2, 1]
    for name in ("cls", "dense"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(both, name)[[2, 1]])
        plain = getattr(teacher.teacher(images[:2]), name)
        torch.testing.assert_close(getattr(first, name), plain, rtol=1e-3, atol=1e-4)


def test_another_process_finds_the_answers_and_other_settings_do_not(cached, asked):
    images = torch.randn(2, 3, 32, 32)
    cached()(images)
    asked(cached())(images)
    assert asked.numbers == []
    for change in (
        ("MODEL.CLIP_ZSS.TEACHER_SIZE", 64),
        ("MODEL.CLIP.DENSE_TOKENS", "value"),
        ("MODEL.CLIP.QUICK_GELU", "true"),
    ):
        asked(cached(*change))(images)
    assert asked.numbers == [2, 2, 2]


def test_other_weights_have_other_answers(cached, asked, tmp_path):
    images, teacher = torch.randn(2, 3, 32, 32), cached()
    teacher(images)
    parameter = next(teacher.teacher.tower.module.parameters())
    parameter.data += 1
    asked(CachedTeacher(teacher.teacher, tmp_path))(images)
    assert asked.numbers == [2]


def test_a_damaged_file_is_made_anew(cached, asked, tmp_path, caplog):
    images, teacher = torch.randn(1, 3, 32, 32), asked(cached())
    first = teacher(images)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(teacher(images).dense, first.dense)
    assert str(file) in caplog.text
    teacher(images)
    assert asked.numbers == [1, 1]


def test_the_cache_changes_losses_by_rounding_only(make_cfg, tmp_path):
    losses = []
    for folder in ("", str(tmp_path), str(tmp_path)):
        torch.manual_seed(0)
        cfg = make_cfg(*TINY, *WHOLE_IMAGES, "MODEL.CLIP_ZSS.TEACHER_CACHE", folder)
        losses.append(build_model(cfg).train()(batch((64, 64), (64, 64))))
    assert losses[1] == losses[2]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    "change",
    [
        ("INPUT.CROP.ENABLED", True),
        ("INPUT.COLOR_AUG", True),
        ("INPUT.SCALE_RANGE", (0.5, 2.0)),
    ],
)
def test_random_images_would_never_be_found_again(make_cfg, tmp_path, change):
    cache = ("MODEL.CLIP_ZSS.TEACHER_CACHE", str(tmp_path))
    with pytest.raises(ZssError, match="INPUT.CROP.ENABLED False"):
        build_model(make_cfg(*TINY, *WHOLE_IMAGES, *change, *cache))


@pytest.mark.parametrize(("size", "nearest"), [(3, 16), (7, 16), (40, 32)])
def test_an_input_size_that_patches_do_not_fill_is_refused(cached, size, nearest):
    with pytest.raises(ZssError, match=f"TEACHER_SIZE is {size}, .* use {nearest}, or 0"):
        cached("MODEL.CLIP_ZSS.TEACHER_SIZE", size)
