"""Which models the page offers, and that one thread at a time uses them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.conftest import TINY_CONFIG
from zss_d2.config.defaults import default_config
from zss_d2.config.model_folder import ABOUT, WEIGHTS
from zss_d2.errors import ZssError
from zss_d2.web import models
from zss_d2.web.models import Choice, Models, choices_at_hand, given_choices


def make_run(folder: Path, checkpoint: str = "model_final.pth", age: float = 0) -> Path:
    folder.mkdir(parents=True)
    cfg = default_config()
    cfg.merge_from_file(str(TINY_CONFIG))
    (folder / "config.yaml").write_text(cfg.dump())
    if checkpoint:
        (folder / checkpoint).write_text("weights")
        (folder / "last_checkpoint").write_text(checkpoint)
        os.utime(folder / checkpoint, (1e9 - age, 1e9 - age))
    return folder


def test_runs_at_hand_come_newest_first_then_what_needs_no_training(tmp_path):
    old = make_run(tmp_path / "sweep/ldvc/seed0", age=5)
    new = make_run(tmp_path / "zegclip")
    make_run(tmp_path / "no_checkpoint", checkpoint="")
    make_run(tmp_path / "a/b/c/d/too_deep")
    shared = make_run(tmp_path / "shared/yard", checkpoint="")
    (shared / WEIGHTS).write_text("weights")
    (shared / ABOUT).write_text("{}")
    os.utime(shared / WEIGHTS, (1e9 - 1, 1e9 - 1))
    (tmp_path / "zegclip/inside").mkdir()
    (tmp_path / "zegclip/inside/config.yaml").write_text("")
    found = choices_at_hand(tmp_path)
    assert [choice.config for choice in found] == [new, shared, old, models.TRAINING_FREE]
    names = ["zegclip", "shared/yard", "sweep/ldvc/seed0", "maskclip_mini"]
    assert [choice.name for choice in found] == names


def test_what_looks_like_a_run_and_is_none_is_told(tmp_path, capsys):
    (make_run(tmp_path / "lost") / "model_final.pth").unlink()
    (make_run(tmp_path / "broken") / "config.yaml").write_text("[")
    (choice,) = choices_at_hand(tmp_path)
    assert choice.config == models.TRAINING_FREE
    notes = sorted(capsys.readouterr().err.splitlines())
    assert [note.split(":")[1] for note in notes] == [
        f" {tmp_path / 'broken'} is left out",
        f" {tmp_path / 'lost'} is left out",
    ]


def test_without_any_model_one_line_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "TRAINING_FREE", tmp_path / "no.yaml")
    with pytest.raises(ZssError, match="give the folder of a run, or --config-file"):
        choices_at_hand(tmp_path / "nothing")


def test_given_models_are_those_of_the_command_line(tmp_path):
    runs = [tmp_path / "a/seed0", tmp_path / "b/seed0"]
    assert given_choices(Path("configs/x.yaml"), "x.pth", runs) == [
        Choice("x", Path("configs/x.yaml"), "x.pth"),
        Choice("a", runs[0]),
        Choice("b", runs[1]),
    ]
    assert given_choices(None, None, []) == []
    with pytest.raises(ZssError, match="--weights belongs to a --config-file"):
        given_choices(None, "x.pth", runs)
    with pytest.raises(ZssError, match="given twice"):
        given_choices(None, None, [runs[0], runs[0]])


def test_a_model_is_loaded_when_it_is_asked_for_and_two_stay():
    loaded = []
    choices = [Choice(name, Path(name)) for name in "abc"]
    offered = Models(choices, lambda choice: loaded.append(choice.name) or choice.name)
    for name in "aabacab":
        with offered.use(name) as model:
            assert model == name
    # "b" went when "c" came, "c" when "b" came back.
    assert loaded == ["a", "b", "c", "b"]


def test_a_name_that_is_not_offered_is_refused():
    offered = Models([Choice("a", Path("a"))], lambda choice: choice)
    with (
        pytest.raises(ZssError, match="'b' is no model of this page; choose one of a"),
        offered.use("b"),
    ):
        pass


def test_one_thread_at_a_time_uses_a_model():
    offered = Models([Choice("a", Path("a"))], lambda choice: choice)
    entered, others = threading.Event(), []

    def use() -> None:
        entered.set()
        with offered.use("a"):
            others.append(True)

    with offered.use("a"):
        thread = threading.Thread(target=use)
        thread.start()
        assert entered.wait(10)
        assert not others
    thread.join(10)
    assert others == [True]


def load(choice: Choice) -> str:
    if choice.name.startswith("bad"):
        raise ZssError(f"{choice.name} cannot be loaded")
    return choice.name


def test_found_models_that_cannot_be_loaded_are_left_out_until_one_can(capsys):
    offered = Models([Choice(name, Path(name)) for name in ("bad1", "good", "bad2")], load)
    offered.drop_unloadable()
    assert offered.names == ["good", "bad2"]
    assert capsys.readouterr().err == "note: bad1 is left out: bad1 cannot be loaded\n"
    with pytest.raises(ZssError, match="bad1 cannot"):
        Models([Choice("bad1", Path("x"))], load).drop_unloadable()


def test_given_models_must_all_load():
    with pytest.raises(ZssError, match="bad cannot be loaded"):
        Models([Choice(name, Path(name)) for name in ("good", "bad")], load).load_all()
