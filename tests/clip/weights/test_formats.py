"""Every format that CLIP weights come in gives the same towers; what is none is called by name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.clip.weights.weight_files import (
    features,
    half_as_openai,
    openai_state,
    save_archive,
    save_archive_that_writes,
    tiny_clip,
    towers_of,
    transformers_state,
)
from zss_d2.clip import ClipTowers, build_clip_towers
from zss_d2.clip.weights.formats import fitting_models
from zss_d2.errors import ZssError


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    return tiny_clip(quick_gelu=True)


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{key}": value for key, value in state.items()}


def save_tensors(state: dict, path: Path) -> None:
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)


FORMATS: dict[str, Callable[[open_clip.CLIP, Path], None]] = {
    "OpenAI's archive": lambda clip, path: save_archive(openai_state(clip), path),
    "OpenAI's state dict": lambda clip, path: torch.save(openai_state(clip), path),
    "half": lambda clip, path: torch.save(half_as_openai(clip), path),
    "single": lambda clip, path: torch.save(clip.state_dict(), path),
    "legacy": lambda clip, path: torch.save(
        clip.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda clip, path: save_tensors(clip.state_dict(), path),
    "open_clip's training": lambda clip, path: torch.save(
        {
            "epoch": 3,
            "name": "run",
            "state_dict": prefixed(clip.state_dict(), "module."),
            "optimizer": {"state": {}, "param_groups": []},
        },
        path,
    ),
    "model": lambda clip, path: torch.save({"model": clip.state_dict(), "args": None}, path),
    "Lightning": lambda clip, path: torch.save(
        {
            "state_dict": prefixed(clip.state_dict(), "model.clip.") | {"loss.w": torch.ones(2)},
            "pytorch-lightning_version": "2.0.0",
        },
        path,
    ),
    "custom text": lambda clip, path: torch.save(
        {
            key if key.startswith(("visual.", "logit_scale")) else f"text.{key}": value
            for key, value in clip.state_dict().items()
        },
        path,
    ),
    "transformers": lambda clip, path: torch.save(transformers_state(clip), path),
    "transformers, safetensors": lambda clip, path: save_tensors(transformers_state(clip), path),
    "transformers, within": lambda clip, path: torch.save(
        {"state_dict": prefixed(transformers_state(clip), "clip.")}, path
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_features_of_the_model_it_was_made_from(name, clip, tmp_path):
    # The suffix says nothing: hubs name safetensors .bin and the other way round.
    FORMATS[name](clip, tmp_path / "weights.bin")
    towers = build_clip_towers("zss-tiny", str(tmp_path / "weights.bin"), quick_gelu="true")
    for got, expected in zip(features(towers), features(towers_of(clip)), strict=True):
        assert torch.equal(got, expected)


def test_what_lies_beside_the_clip_in_a_file_is_left_out_and_said(clip, tmp_path, caplog):
    FORMATS["Lightning"](clip, tmp_path / "clip.ckpt")
    build_clip_towers("zss-tiny", str(tmp_path / "clip.ckpt"))
    assert "1 tensors outside of 'model.clip.' are left out, first 'loss.w'" in caplog.text


def error_of(path: Path, name: str = "zss-tiny") -> str:
    """The message for a file: one line of at most 300 characters."""
    with pytest.raises(ZssError) as caught:
        build_clip_towers(name, str(path))
    message = str(caught.value)
    assert len(message) <= 300 and "\n" not in message
    assert path.name in message
    return message


NO_WEIGHTS = {
    "is empty": (b"", "an empty file"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer; fetch the file with `git lfs pull`",
    ),
    "page": (b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "a web page"),
    "json": (b'{"metadata": {"total_size": 1}, "weight_map": {}}', "JSON"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "TensorFlow"),
    "text": (b"no weights", "begins with b'no weights'"),
    "half a pickle": (b"\x80\x02}q\x00(X\x05\x00", "a pickle that torch.save has not written"),
    "array": (b"\x93NUMPY\x01\x00v\x00", "one NumPy array"),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_that_is_no_weights_is_called_what_it_is(kind, tmp_path):
    content, expected = NO_WEIGHTS[kind]
    (tmp_path / "clip.pt").write_bytes(content)
    assert expected in error_of(tmp_path / "clip.pt")


@pytest.mark.parametrize("name", ["OpenAI's archive", "single", "legacy", "safetensors"])
def test_half_a_file_is_called_damaged(name, clip, tmp_path):
    FORMATS[name](clip, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "clip.pt").write_bytes(whole[: len(whole) // 2])
    assert "damaged or unfinished; fetch the file again" in error_of(tmp_path / "clip.pt")


def test_a_folder_names_the_files_in_it(tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/model.safetensors").touch()
    message = error_of(tmp_path / "hub")
    assert "a folder; name one of its files, model.safetensors" in message


def test_python_objects_in_a_file_are_not_made(tmp_path):
    torch.save({"state_dict": {}, "args": Path("x")}, tmp_path / "clip.pt")
    message = error_of(tmp_path / "clip.pt")
    assert "Python code to run, pathlib.PosixPath" in message
    assert "torch.save(model.state_dict(), ...)" in message


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_code_of_an_archive_does_not_run(tmp_path):
    """``torch.jit.load`` runs what the archive says that a module is restored by."""
    written = tmp_path / "written"
    save_archive_that_writes(written, tmp_path / "clip.pt")
    torch.jit.load(tmp_path / "clip.pt")
    assert written.exists()
    written.unlink()
    message = error_of(tmp_path / "clip.pt")
    assert not written.exists()
    assert "holds nothing; save model.state_dict()" in message


@pytest.mark.parametrize("what", ["os.system", "torch.load", "zss_d2.errors.command"])
def test_an_archive_names_no_functions(clip, tmp_path, what):
    save_archive(openai_state(clip), tmp_path / "whole.pt")
    module, _, name = what.rpartition(".")
    call = f"c{module}\n{name}\n(S'x'\ntR.".encode()
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "clip.pt", "w") as changed,
    ):
        for entry in whole.namelist():
            is_pickle = entry.endswith("/data.pkl")
            changed.writestr(entry, call if is_pickle else whole.read(entry))
    assert f"holds Python code to run, {what}" in error_of(tmp_path / "clip.pt")


class TestMisfits:
    @pytest.fixture
    def save(self, tmp_path) -> Callable[[object], Path]:
        def write(content: object) -> Path:
            torch.save(content, tmp_path / "clip.pt")
            return tmp_path / "clip.pt"

        return write

    def test_other_weights_say_count_and_first_key(self, save):
        state = {f"backbone.layer{index}.weight": torch.ones(1) for index in range(400)}
        message = error_of(save(state))
        assert "400 tensors, but no CLIP's" in message
        assert "first 'backbone.layer0.weight'" in message

    def test_weights_of_another_model_name_the_one_they_fit(self, save, clip):
        message = error_of(save(clip.state_dict()), "mini")
        assert "state dict of open_clip, does not fit mini: 12 tensors are missing" in message
        assert message.endswith("set MODEL.CLIP.NAME zss-tiny")

    def test_following_that_remedy_works(self, save, clip):
        assert fitting_models(clip.state_dict()) == ["zss-tiny", "zss-tiny-quickgelu"]
        build_clip_towers("zss-tiny", str(save(clip.state_dict())))

    def test_missing_and_left_over_tensors_are_counted(self, save, clip):
        state = clip.state_dict()
        del state["ln_final.weight"], state["visual.proj"]
        assert "2 tensors are missing, first 'visual.proj'" in error_of(save(state))
        extra = clip.state_dict() | {"visual.adapter.weight": torch.ones(1)}
        message = error_of(save(extra))
        assert "1 tensors are not of this model, first 'visual.adapter.weight'" in message

    def test_half_of_an_attention_is_missing_not_made_up(self, save, clip):
        state = transformers_state(clip)
        del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
        message = error_of(save(state))
        assert "1 tensors are missing, first 'transformer.resblocks.1.attn.in_proj_bias'" in message

    def test_two_clips_in_one_file_are_not_chosen_from(self, save, clip):
        both = prefixed(clip.state_dict(), "model.") | prefixed(clip.state_dict(), "ema.")
        assert "holds 2 CLIPs, first 'model.'" in error_of(save(both))

    def test_numbers_that_mean_nothing_are_refused(self, save, clip):
        state = clip.state_dict()
        state["visual.proj"] = torch.full_like(state["visual.proj"], torch.nan)
        assert "1 of 73 tensors hold NaN or infinity, first 'visual.proj'" in error_of(save(state))
        state["visual.proj"] = torch.ones(64, 64, dtype=torch.int8)
        assert "visual.proj holds int8 numbers, float32 is needed" in error_of(save(state))

    def test_no_tensors_at_all(self, save):
        assert "holds a list" in error_of(save([1, 2]))

    def test_a_grid_that_no_model_here_has_is_resized_with_a_warning(self, save, clip, caplog):
        state = clip.state_dict()
        state["visual.positional_embedding"] = torch.randn(1 + 12 * 12, 64)
        towers = build_clip_towers("zss-tiny", str(save(state)))
        assert towers.image.visual.positional_embedding.shape == (65, 64)
        assert "position embedding of 144 patches, zss-tiny has 64; it is resized" in caplog.text

    def test_a_grid_that_another_model_has_is_refused(self, save, clip, monkeypatch):
        larger = open_clip.get_model_config("zss-tiny")
        larger["vision_cfg"]["image_size"] = 192
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "zss-tiny-192", larger)
        state = clip.state_dict()
        state["visual.positional_embedding"] = torch.randn(1 + 12 * 12, 64)
        message = error_of(save(state))
        assert "1 tensors are of another size, first 'visual.positional_embedding'" in message
        assert message.endswith("set MODEL.CLIP.NAME zss-tiny-192")

    def test_a_context_of_another_length_is_refused(self, save, clip):
        state = clip.state_dict()
        state["positional_embedding"] = torch.randn(32, 64)
        assert "1 tensors are of another size, first 'positional_embedding'" in error_of(
            save(state)
        )


def test_a_long_path_is_shortened_from_the_front(tmp_path):
    folder = tmp_path / ("deep" * 50)
    folder.mkdir()
    (folder / "clip.pt").write_bytes(b"no weights")
    assert "PRETRAINED ..." in error_of(folder / "clip.pt")


def test_the_files_of_towers_and_tag_are_told_apart(clip, tmp_path):
    towers: ClipTowers = build_clip_towers("zss-tiny", "")
    assert (towers.identity.name, towers.identity.pretrained) == ("zss-tiny", "")
    save_tensors(clip.state_dict(), tmp_path / "clip.pt")
    path = str(tmp_path / "clip.pt")
    towers = build_clip_towers("zss-tiny", path, quick_gelu="true")
    assert towers.identity == towers.text.identity
    assert (towers.identity.pretrained, towers.identity.quick_gelu) == (path, True)
