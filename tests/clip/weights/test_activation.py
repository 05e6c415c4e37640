"""QuickGELU or GELU: by the name, by what is known of the weights, or as the user says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from tests.clip.weights.weight_files import (
    features,
    open_clip_config,
    openai_state,
    save_archive,
    tiny_clip,
    towers_of,
    transformers_config,
    transformers_state,
)
from zss_d2.clip import ClipTowers, build_clip_towers
from zss_d2.clip.weights import activation
from zss_d2.clip.weights.activation import Known, activation_of_tag, choose_quick_gelu
from zss_d2.errors import ZssError


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    return tiny_clip(quick_gelu=True)


def activations(towers: ClipTowers) -> set[type[nn.Module]]:
    modules = (*towers.image.modules(), *towers.text.modules())
    return {type(m) for m in modules if isinstance(m, (nn.GELU, QuickGELU))}


def same_features(one: ClipTowers, other: ClipTowers) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(features(one), features(other), strict=True)]


def save_hub(clip: open_clip.CLIP, folder: Path) -> Path:
    """transformers' files of a hub, without a configuration."""
    path = folder / "model.safetensors"
    save_file({key: value.clone() for key, value in transformers_state(clip).items()}, path)
    return path


# What tells by itself that the weights are OpenAI's.
RECOGNISED: dict[str, Callable[[open_clip.CLIP, Path], Path]] = {}


def recognised(make: Callable) -> Callable:
    RECOGNISED[make.__name__] = make
    return make


@recognised
def archive(clip: open_clip.CLIP, folder: Path) -> Path:
    save_archive(openai_state(clip), folder / "ViT-B-16.pt")
    return folder / "ViT-B-16.pt"


@recognised
def state_dict_with_facts(clip: open_clip.CLIP, folder: Path) -> Path:
    torch.save(openai_state(clip), folder / "clip.pt")
    return folder / "clip.pt"


@recognised
def hub_of_open_clip(clip: open_clip.CLIP, folder: Path) -> Path:
    save_file(
        {key: value.clone() for key, value in clip.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    (folder / "open_clip_config.json").write_text(open_clip_config(True))
    return folder / "open_clip_model.safetensors"


@recognised
def hub_of_transformers(clip: open_clip.CLIP, folder: Path) -> Path:
    (folder / "config.json").write_text(transformers_config("quick_gelu", "quick_gelu"))
    return save_hub(clip, folder)


@pytest.mark.parametrize("kind", RECOGNISED)
def test_weights_of_openai_get_quick_gelu_by_themselves(kind, clip, tmp_path, caplog):
    path = RECOGNISED[kind](clip, tmp_path)
    towers = build_clip_towers("zss-tiny", str(path))
    assert activations(towers) == {QuickGELU}
    assert towers.identity.quick_gelu
    assert same_features(towers, towers_of(clip)) == [True, True]
    assert "QUICK_GELU" not in caplog.text


@pytest.mark.parametrize("kind", RECOGNISED)
def test_the_other_activation_gives_other_features_and_is_said(kind, clip, tmp_path, caplog):
    path = RECOGNISED[kind](clip, tmp_path)
    towers = build_clip_towers("zss-tiny", str(path), quick_gelu="false")
    assert activations(towers) == {nn.GELU}
    assert not towers.identity.quick_gelu
    assert same_features(towers, towers_of(clip)) == [False, False]
    assert "MODEL.CLIP.QUICK_GELU false contradicts" in caplog.text


def test_a_file_that_nothing_is_known_of_is_not_guessed_silently(clip, tmp_path, caplog):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    path = str(tmp_path / "clip.pt")
    assert activations(build_clip_towers("zss-tiny", path)) == {nn.GELU}
    warning = next(r.getMessage() for r in caplog.records if r.name.endswith("activation"))
    assert path in warning and "GELU is used. Set MODEL.CLIP.QUICK_GELU" in warning
    caplog.clear()
    for choice, module in (("true", QuickGELU), ("false", nn.GELU)):
        assert activations(build_clip_towers("zss-tiny", path, quick_gelu=choice)) == {module}
    assert not caplog.text


def test_there_is_no_warning_where_no_weights_have_quick_gelu(clip, tmp_path, caplog, monkeypatch):
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "only-gelu", configs["zss-tiny"])
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    assert activations(build_clip_towers("only-gelu", str(tmp_path / "clip.pt"))) == {nn.GELU}
    assert not caplog.text


def test_a_name_that_ends_in_quickgelu_decides(clip, tmp_path, caplog):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    path = str(tmp_path / "clip.pt")
    towers = build_clip_towers("zss-tiny-quickgelu", path)
    assert same_features(towers, towers_of(clip)) == [True, True]
    assert not caplog.text
    message = "NAME zss-tiny-quickgelu has QuickGELU, against MODEL.CLIP.QUICK_GELU false"
    with pytest.raises(ZssError, match=message):
        build_clip_towers("zss-tiny-quickgelu", path, quick_gelu="false")
    save_hub(clip, tmp_path)
    (tmp_path / "config.json").write_text(transformers_config("gelu", "gelu"))
    with pytest.raises(
        ZssError, match="against config.json .* which has GELU; set MODEL.CLIP.NAME z"
    ):
        build_clip_towers("zss-tiny-quickgelu", str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("choice", [True, False, "yes"])
def test_other_choices_are_refused(choice):
    with pytest.raises(ZssError, match="is none of 'auto', 'true', 'false', in quotes"):
        build_clip_towers("zss-tiny", "", quick_gelu=choice)


def test_random_weights_follow_the_key():
    for choice, module in (("auto", nn.GELU), ("true", QuickGELU), ("false", nn.GELU)):
        assert activations(build_clip_towers("zss-tiny", "", quick_gelu=choice)) == {module}
    assert activations(build_clip_towers("zss-tiny-quickgelu", "")) == {QuickGELU}


class TestConfigurationBesideTheFile:
    def test_gelu_of_either_hub_is_known(self, clip, tmp_path, caplog):
        (tmp_path / "config.json").write_text(transformers_config("gelu", "gelu"))
        (tmp_path / "open_clip_config.json").write_text(open_clip_config(False))
        save_hub(clip, tmp_path)
        torch.save(clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
        for name in ("model.safetensors", "open_clip_pytorch_model.bin"):
            assert activations(build_clip_towers("zss-tiny", str(tmp_path / name))) == {nn.GELU}
        assert not caplog.text

    def test_it_also_gives_the_image_statistics(self, clip, tmp_path):
        text = open_clip_config(True, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
        (tmp_path / "open_clip_config.json").write_text(text)
        torch.save(clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
        towers = build_clip_towers("zss-tiny", str(tmp_path / "open_clip_pytorch_model.bin"))
        assert towers.pixel_mean == pytest.approx((25.5, 51, 76.5))
        assert towers.pixel_std == pytest.approx((102, 127.5, 153))

    def test_one_of_another_model_or_file_is_not_believed(self, clip, tmp_path, caplog):
        text = transformers_config("quick_gelu", "quick_gelu").replace("16", "32")
        (tmp_path / "config.json").write_text(text)
        towers = build_clip_towers("zss-tiny", str(save_hub(clip, tmp_path)))
        assert activations(towers) == {nn.GELU}
        assert "Set MODEL.CLIP.QUICK_GELU" in caplog.text
        caplog.clear()
        (tmp_path / "open_clip_config.json").write_text(open_clip_config(True))
        torch.save(clip.state_dict(), tmp_path / "mine.pt")
        assert activations(build_clip_towers("zss-tiny", str(tmp_path / "mine.pt"))) == {nn.GELU}
        assert "Set MODEL.CLIP.QUICK_GELU" in caplog.text

    @pytest.mark.parametrize("activations", [("gelu", "quick_gelu"), ("relu", "relu")])
    def test_an_activation_that_no_tower_here_has_is_refused(self, clip, tmp_path, activations):
        (tmp_path / "config.json").write_text(transformers_config(*activations))
        with pytest.raises(ZssError, match="config.json beside it says (gelu and quick_gelu|relu)"):
            build_clip_towers("zss-tiny", str(save_hub(clip, tmp_path)))


def test_a_file_of_openai_on_the_hub_is_known_by_its_digest(clip, tmp_path, monkeypatch):
    path = save_hub(clip, tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(activation._OPENAI_ON_HUB, digest, "tiny")
    towers = build_clip_towers("zss-tiny", str(path))
    assert same_features(towers, towers_of(clip)) == [True, True]


class TestTags:
    def test_open_clip_knows_the_activation_of_its_tags(self):
        assert activation_of_tag("ViT-B-16", "openai").quick_gelu
        assert not activation_of_tag("ViT-B-16", "laion2b_s34b_b88k").quick_gelu
        assert activation_of_tag("ViT-B-32", "laion400m_e32").quick_gelu

    @pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b88k", False)])
    def test_they_decide_unless_told_otherwise_which_is_said(self, tag, quick, caplog):
        known = activation_of_tag("ViT-B-16", tag)
        assert choose_quick_gelu("auto", "ViT-B-16", tag, known) is quick
        assert choose_quick_gelu(str(quick).lower(), "ViT-B-16", tag, known) is quick
        assert not caplog.text
        assert choose_quick_gelu(str(not quick).lower(), "ViT-B-16", tag, known) is not quick
        assert f"contradicts open_clip's tag {tag!r}" in caplog.text

    def test_a_name_against_a_tag_is_an_error(self):
        with pytest.raises(ZssError, match="set MODEL.CLIP.NAME ViT-B-16$"):
            choose_quick_gelu("auto", "ViT-B-16-quickgelu", "x", Known(False, "open_clip's tag x"))
