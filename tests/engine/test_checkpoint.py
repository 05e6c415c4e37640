import argparse
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError


def net(width: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))


def saved(tmp_path, model) -> str:
    ZeroShotCheckpointer(model, str(tmp_path)).save("weights", iteration=7)
    return str(tmp_path / "weights.pth")


def test_round_trip_with_extra_data_and_tag(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    checkpointer = ZeroShotCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("weights", iteration=7)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "weights.pth")
    restored = torch.optim.AdamW(other.parameters(), lr=0.1)
    extra = ZeroShotCheckpointer(other, optimizer=restored).load(str(tmp_path / "weights.pth"))
    assert extra["iteration"] == 7
    assert restored.param_groups[0]["lr"] == 0.5
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path, net())
    before = (tmp_path / "weights.pth").read_bytes()

    def half_a_file(data, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, net())
    monkeypatch.undo()
    assert (tmp_path / "weights.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "weights.pth"]
    ZeroShotCheckpointer(net()).load(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (net(width=4), r"3 weights with other shapes, such as 0.weight is \(3, 2\) instead of"),
        (torch.nn.Sequential(*net(), torch.nn.Linear(1, 1)), "2 weights with missing, such as 2.w"),
        (torch.nn.Sequential(torch.nn.Linear(2, 3)), "2 weights with unknown, such as 1.weight"),
    ],
)
def test_other_models_are_refused(tmp_path, model, message):
    path = saved(tmp_path, net())
    with pytest.raises(ZssError, match=f"{path}: belongs to another model.*{message}"):
        ZeroShotCheckpointer(model).load(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ZssError, match="none.pth does not exist"):
        ZeroShotCheckpointer(net()).load(str(tmp_path / "none.pth"))
    with pytest.raises(ZssError, match="xxx does not exist"):
        ZeroShotCheckpointer(net()).load("x" * 300)


def error_of(path: object) -> str:
    """The message for a file: one line of at most 300 characters that names it."""
    with pytest.raises(ZssError) as caught:
        ZeroShotCheckpointer(net()).load(str(path))
    message = str(caught.value)
    assert len(message) <= 300 and "\n" not in message
    assert str(path)[-20:] in message
    return message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "an empty file; fetch it again"),
        (b"no checkpoint at all", "no weights, it begins with b'no checkpoin'"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "a Git LFS pointer; fetch",
        ),
        (b"<!DOCTYPE html><html>", "a web page; download the file itself"),
        (pickle.dumps([1, 2]), "a pickle that torch.save has not written"),
        (pickle.dumps({"model": {}}, protocol=2), "a pickle that torch.save has not written"),
        ([1, 2], "holds a list, no tensors by name; save model.state_dict()"),
        (torch.ones(2), "holds a Tensor, no tensors by name"),
        ({"a": 1}, "holds a dict of a, no tensors by name"),
        ({"model": 5}, "holds a dict of model, no tensors by name"),
        ({"model": {}}, "holds nothing; save"),
        ({}, "holds nothing; save"),
        ({"model": net().state_dict(), "x": Path("x")}, "Python code to run, pathlib.P"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, problem):
    path = tmp_path / "some_weights_file.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert problem in error_of(path)


def test_half_a_checkpoint_is_damaged(tmp_path):
    path = Path(saved(tmp_path, net(width=500)))
    path.write_bytes(path.read_bytes()[:3000])
    assert "damaged or unfinished" in error_of(path)


def test_a_folder_names_the_checkpoints_in_it(tmp_path):
    saved(tmp_path / "the_output_of_a_run", net())
    message = error_of(tmp_path / "the_output_of_a_run")
    assert "a folder; name one of its files, weights.pth" in message


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS: dict[str, Callable[[dict], dict]] = {
    "bare": lambda state: state,
    "DDP": lambda state: prefixed(state, "module."),
    "compiled": lambda state: {"model": prefixed(state, "_orig_mod.module.")},
    "Lightning": lambda state: {
        "state_dict": prefixed(state, "segmentor.net."),
        "pytorch-lightning_version": "2.1.0",
        "epoch": 3,
        "optimizer_states": [],
    },
    "mmsegmentation": lambda state: {
        "meta": {"mmseg_version": "0.20", "CLASSES": ("a", "b")},
        "state_dict": state,
        "optimizer": {},
    },
    "arguments": lambda state: {"model_state_dict": state, "args": argparse.Namespace(lr=1)},
    "more than tensors": lambda state: {"model": state | {"epoch": 3}},
    "half": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("kind", [*WRAPPERS, "safetensors"])
def test_weights_that_fit_are_loaded_out_of_known_wrappers(tmp_path, kind):
    model, other, path = net(), net(), tmp_path / "weights.ckpt"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(WRAPPERS[kind](model.state_dict()), path)
    ZeroShotCheckpointer(other).load(str(path))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
        assert other.state_dict()[name].dtype == torch.float32


def test_what_is_left_out_or_converted_is_said(tmp_path, caplog):
    state = net().half().state_dict() | {"epoch": 3}
    torch.save({"model": state}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        ZeroShotCheckpointer(net()).load(str(tmp_path / "w.pth"))
    assert "1 entries that are no tensors are left out, first 'epoch'" in caplog.text
    assert "converted from float16" in caplog.text


@pytest.mark.parametrize(
    ("kind", "whose"),
    [("Lightning", "PyTorch Lightning's"), ("mmsegmentation", "MMSegmentation's")],
)
def test_other_peoples_checkpoints_that_do_not_fit_are_called_theirs(tmp_path, kind, whose):
    path = tmp_path / "somebody_elses_model.ckpt"
    torch.save(WRAPPERS[kind]({"backbone.weight": torch.ones(2)}), path)
    message = error_of(path)
    assert f"{whose}, belongs to another model or configuration than Sequential: 4 we" in message
    assert message.endswith("give a checkpoint of this project, or weights named as this model's")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda x: x.fill_(torch.nan), "1 of 4 tensors hold NaN or infinity, first '0.weight'"),
        (lambda x: x.fill_(-torch.inf), "1 of 4 tensors hold NaN or infinity, first '0.weight'"),
        (lambda x: x.to(torch.int8), "0.weight holds int8 numbers, float32 is needed"),
        (lambda x: x.to(torch.complex64), "0.weight holds complex64 numbers, float32 is needed"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(tmp_path, change, problem):
    state = net().state_dict()
    state["0.weight"] = change(state["0.weight"])
    torch.save({"model": state}, tmp_path / "the_weights_of_a_run.pth")
    assert problem in error_of(tmp_path / "the_weights_of_a_run.pth")


class TestTrainingState:
    def resumed(self, folder: Path) -> dict:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters())
        loader = ZeroShotCheckpointer(model, str(folder), optimizer=optimizer)
        return loader.resume_or_load("", resume=True)

    def test_weights_alone_cannot_be_resumed(self, tmp_path):
        saved(tmp_path, net())
        with pytest.raises(ZssError, match="holds weights alone and no training state .optimizer"):
            self.resumed(tmp_path)

    def test_as_the_start_of_a_run_they_do(self, tmp_path):
        model = net()
        loader = ZeroShotCheckpointer(model, optimizer=torch.optim.AdamW(model.parameters()))
        loader.resume_or_load(saved(tmp_path, net()), resume=True)

    @pytest.mark.parametrize("state", [5, {}, {"state": {}, "param_groups": []}])
    def test_a_state_of_something_else_is_an_error(self, tmp_path, state):
        content = {"model": net().state_dict(), "optimizer": state}
        torch.save(content, tmp_path / "model_final.pth")
        (tmp_path / "last_checkpoint").write_text("model_final.pth")
        with pytest.raises(ZssError, match="final.pth: its state of optimizer does not fit this"):
            self.resumed(tmp_path)


@pytest.mark.parametrize("scheme", ["s3", "file", "hdfs", "catalog"])
def test_unknown_schemes_name_the_known_ones(scheme):
    message = error_of(f"{scheme}://bucket/some/model_final.pth")
    assert "MODEL.WEIGHTS" in message and ("http, https" in message or "is unavailable" in message)


def test_nothing_to_train_has_no_checkpoint_to_go_on_from(tmp_path):
    """A sweep evaluates MaskCLIP with --resume as it does any other method."""
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ZssError, match="holds no checkpoint"):
        ZeroShotCheckpointer(model, str(tmp_path)).load_to_evaluate("", resume=True)
    model.requires_grad_(False)
    assert ZeroShotCheckpointer(model, str(tmp_path)).load_to_evaluate("", resume=True) == (
        "",
        None,
    )
