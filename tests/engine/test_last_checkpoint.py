"""``last_checkpoint`` names a file of its folder, or the newest checkpoint there is named."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest
import torch

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.last_checkpoint import newest_checkpoint
from zss_d2.errors import ZssError


class Counter:
    """Stands for a trainer, the training state of which is one number."""

    def __init__(self, iteration: int = 0):
        self.iteration = iteration

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]


def checkpointer(folder: Path, iteration: int = 0) -> ZeroShotCheckpointer:
    return ZeroShotCheckpointer(torch.nn.Linear(1, 1), str(folder), trainer=Counter(iteration))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the checkpoints of iterations 4 and 9, the last one deleted."""
    folder = tmp_path / "out put"
    for iteration in (4, 9, 14):
        checkpointer(folder, iteration).save(f"model_{iteration:07d}")
    (folder / "model_0000014.pth").unlink()
    return folder


def resumed(folder: Path) -> int:
    loader = checkpointer(folder)
    loader.resume_or_load("", resume=True)
    return loader.checkpointables["trainer"].iteration


def test_a_deleted_checkpoint_is_said_and_the_remedy_works(run):
    with pytest.raises(ZssError) as error:
        resumed(run)
    message = str(error.value)
    assert "names 'model_0000014.pth', which is not there" in message
    assert "the newest checkpoint there is model_0000009.pth" in message
    subprocess.run(message.split("go on from it: ")[1], shell=True, check=True)
    assert resumed(run) == 9


def test_evaluating_the_last_checkpoint_says_the_same(run):
    with pytest.raises(ZssError, match="not there; the newest .* is model_0000009.pth"):
        checkpointer(run).load_to_evaluate("", resume=True)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xff\xfe\x00garbage", "not the name of a file in its folder"),
        (b"model_0000004.pth\nmodel_0000009.pth\n", "not the name of a file in its folder"),
        (b"sub/model_0000004.pth", "not the name of a file in its folder"),
        (b"..", "not the name of a file in its folder"),
        (b"x" * 5000, "names 'xxx"),
    ],
)
def test_what_is_no_file_name_is_refused(run, content, problem):
    (run / "last_checkpoint").write_bytes(content)
    with pytest.raises(ZssError, match=f"last_checkpoint.* {problem}.*newest.* model_0000009.pth"):
        resumed(run)


@pytest.mark.parametrize("way", ["absolute", "../other/model_0000004.pth", "..\\model_0000004.pth"])
def test_a_pointer_out_of_the_folder_is_refused(run, tmp_path, way):
    other = tmp_path / "other"
    checkpointer(other, 4).save("model_0000004")
    (run / "..\\model_0000004.pth").touch()
    pointed = str(other / "model_0000004.pth") if way == "absolute" else way
    (run / "last_checkpoint").write_text(pointed)
    with pytest.raises(ZssError, match="not the name of a file in its folder"):
        resumed(run)


def test_a_pointer_that_is_a_folder_or_leads_nowhere_is_refused(run):
    pointer = run / "last_checkpoint"
    pointer.unlink()
    pointer.symlink_to(run / "nowhere")
    with pytest.raises(ZssError, match="last_checkpoint cannot be read"):
        resumed(run)
    pointer.unlink()
    pointer.mkdir()
    with pytest.raises(ZssError, match="last_checkpoint cannot be read"):
        resumed(run)


def test_without_any_checkpoint_no_file_is_to_be_named(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(ZssError, match="not there, nor is any other checkpoint"):
        resumed(tmp_path)


def test_a_run_that_was_killed_before_its_first_pointer_goes_on(run, caplog):
    (run / "last_checkpoint").unlink()
    assert resumed(run) == 9
    assert "last_checkpoint is missing; the newest checkpoint is model_0000009.pth" in caplog.text


def test_a_folder_without_checkpoints_is_a_new_run(tmp_path):
    assert resumed(tmp_path) == 0
    assert not checkpointer(tmp_path).has_checkpoint()


def test_the_newest_checkpoint_is_the_one_of_the_last_iteration(tmp_path):
    """Not the one written last: files are copied."""
    checkpointer(tmp_path, 19).save("model_final")
    assert newest_checkpoint(tmp_path).name == "model_final.pth"
    checkpointer(tmp_path, 9).save("model_0000009")
    assert newest_checkpoint(tmp_path).name == "model_final.pth"
    # A run that went on to a larger MAX_ITER.
    checkpointer(tmp_path, 10_000_000).save("model_10000000")
    os.utime(tmp_path / "model_10000000.pth", (0, 0))
    assert newest_checkpoint(tmp_path).name == "model_10000000.pth"
    (tmp_path / "model_10000000.pth").unlink()
    (tmp_path / "model_final.pth").write_bytes(b"damaged")
    assert newest_checkpoint(tmp_path).name == "model_0000009.pth"


def test_of_a_damaged_checkpoint_the_newest_readable_one_is_named(run):
    """Nobody can fetch what a run has written itself; the printed command makes it go on."""
    newest = run / "model_0000009.pth"
    newest.write_bytes(newest.read_bytes()[:100])
    (run / "last_checkpoint").write_text(newest.name)
    with pytest.raises(ZssError, match="; or go on from model_0000004.pth, the newest") as caught:
        resumed(run)
    subprocess.run(str(caught.value).rpartition("read: ")[2], shell=True, check=True)
    assert resumed(run) == 4


class TestEvaluation:
    def test_a_file_given_beside_resume_is_not_ignored_silently(self, tmp_path, caplog):
        checkpointer(tmp_path / "run", 9).save("model_0000009")
        checkpointer(tmp_path / "other", 4).save("model_final")
        other = str(tmp_path / "other/model_final.pth")
        path, iterations = checkpointer(tmp_path / "run").load_to_evaluate(other, resume=True)
        assert (path, iterations) == (str(tmp_path / "run/model_0000009.pth"), 10)
        assert f"MODEL.WEIGHTS {other} is not; without --resume" in caplog.text
        path, iterations = checkpointer(tmp_path / "run").load_to_evaluate(other, resume=False)
        assert (path, iterations) == (other, 5)

    def test_resume_without_a_checkpoint_is_said_or_an_error(self, tmp_path, caplog):
        with pytest.raises(ZssError, match="--resume: .*none holds no checkpoint; give"):
            checkpointer(tmp_path / "none").load_to_evaluate("", resume=True)
        checkpointer(tmp_path / "other").save("model_final")
        other = str(tmp_path / "other/model_final.pth")
        assert checkpointer(tmp_path / "none").load_to_evaluate(other, True)[0] == other
        assert f"holds no checkpoint, MODEL.WEIGHTS {other} is evaluated" in caplog.text

    def test_untrained_weights_are_said(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            assert checkpointer(tmp_path).load_to_evaluate("", False) == ("", None)
        assert "MODEL.WEIGHTS is empty: evaluating a model without trained weights" in caplog.text
