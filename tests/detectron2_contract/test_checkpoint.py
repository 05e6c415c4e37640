"""Checkpoints: what is saved, resumed, and only logged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer
from torch import nn


class Net(nn.Module):
    """One layer."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Equal state, bit by bit."""
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_it_is_a_checkpointer() -> None:
    assert issubclass(DetectionCheckpointer, Checkpointer)


def test_save_and_resume(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    saver = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    assert not saver.has_checkpoint()
    saver.save("model_0000004", iteration=4)
    assert saver.has_checkpoint()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"

    resumed = Net()
    new_optimizer = torch.optim.SGD(resumed.parameters(), lr=0.1)
    loader = DetectionCheckpointer(resumed, str(tmp_path), optimizer=new_optimizer)
    rest = loader.resume_or_load("ignored.pth", resume=True)
    assert rest == {"iteration": 4}
    assert same(model, resumed)
    assert new_optimizer.param_groups[0]["lr"] == 0.5
    assert loader.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")


def test_load_without_resume_takes_the_model_only(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("start", iteration=4)
    loaded = Net()
    new_optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loader = DetectionCheckpointer(loaded, str(tmp_path / "new"), optimizer=new_optimizer)
    loader.resume_or_load(str(tmp_path / "start.pth"), resume=True)
    assert same(model, loaded)
    assert new_optimizer.param_groups[0]["lr"] == 0.1


def test_empty_path_loads_nothing() -> None:
    model = Net()
    before = model.layer.weight.clone()
    assert DetectionCheckpointer(model).load("") == {}
    assert torch.equal(model.layer.weight, before)


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="absent.pth"):
        DetectionCheckpointer(Net()).load(str(tmp_path / "absent.pth"))


def test_bare_state_dict_and_wrapper_prefix(tmp_path: Path) -> None:
    model = Net()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "wrapped.pth")
    for name in ("bare.pth", "wrapped.pth"):
        loaded = Net()
        DetectionCheckpointer(loaded).load(str(tmp_path / name))
        assert same(model, loaded)


def test_wrapped_model_is_saved_without_its_wrapper(tmp_path: Path) -> None:
    model = Net()
    saver = DetectionCheckpointer(nn.DataParallel(model), str(tmp_path))
    assert saver.model is model
    saver.save("plain")
    saved = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert set(saved["model"]) == {"layer.weight", "layer.bias"}


def test_mismatches_are_logged_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"layer.weight": torch.zeros(9, 2), "layer.bias": torch.ones(2), "other": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "partial.pth")
    model = Net()
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(tmp_path / "partial.pth"))
    assert model.layer.bias.tolist() == [1.0, 1.0]
    assert "layer.weight" in caplog.text
    assert "(9, 2)" in caplog.text
    assert "other" in caplog.text


def test_save_to_disk_can_be_off(tmp_path: Path) -> None:
    DetectionCheckpointer(Net(), str(tmp_path), save_to_disk=False).save("nothing")
    assert list(tmp_path.iterdir()) == []


def test_tag_last_checkpoint(tmp_path: Path) -> None:
    saver = DetectionCheckpointer(Net(), str(tmp_path))
    saver.save("first")
    saver.save("second")
    saver.tag_last_checkpoint("first.pth")
    assert saver.get_checkpoint_file() == str(tmp_path / "first.pth")


def test_periodic_saves(tmp_path: Path) -> None:
    saver = DetectionCheckpointer(Net(), str(tmp_path))
    periodic = PeriodicCheckpointer(saver, period=2, max_iter=5, max_to_keep=1)
    for iteration in range(5):
        periodic.step(iteration)
    assert {path.name for path in tmp_path.glob("*.pth")} == {
        "model_0000003.pth",
        "model_final.pth",
    }
    assert saver.load(str(tmp_path / "model_final.pth")) == {"iteration": 4}
