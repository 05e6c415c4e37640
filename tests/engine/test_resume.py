"""A run that was stopped and goes on is the run that was never stopped."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from tests.conftest import ROOT
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.mini.write import write_split
from zss_d2.engine import ZeroShotTrainer
from zss_d2.engine.processes import interrupt
from zss_d2.engine.processes.interrupt import Interrupted
from zss_d2.engine.resume import (
    read_metrics,
    require_folder_for_training,
    rewind_metrics,
    stored_training_state,
)
from zss_d2.errors import ZssError

ITERATIONS = 6
_COSTS = ("time", "seconds", "max_mem")


class KillAt(HookBase):
    """A signal during an iteration, or an exception behind it as if the process had ended."""

    def __init__(self, iteration: int, signum: int | None):
        self.iteration, self.signum = iteration, signum

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration and self.signum:
            os.kill(os.getpid(), self.signum)
        if self.trainer.iter == self.iteration + 1 and not self.signum:
            raise KeyboardInterrupt


def train(cfg: CfgNode, folder: Path, *, kill: KillAt | None = None, **kwargs) -> ZeroShotTrainer:
    cfg.OUTPUT_DIR = str(folder)
    seed_all_rng(0)
    trainer = ZeroShotTrainer(cfg)
    if kill is not None:
        trainer.register_hooks([kill])
    trainer.resume_or_load(resume=True, **kwargs)
    with interrupt.listening():
        trainer.train()
    return trainer


def leaves(content: object, name: str = "") -> dict[str, object]:
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    else:
        return {name: content}
    return {k: v for key, value in pairs for k, v in leaves(value, f"{name}/{key}").items()}


def assert_same_checkpoint(one: Path, other: Path) -> None:
    """Weights, optimizer, schedule, images drawn, memory, histories: bit for bit."""
    first, second = (leaves(torch.load(path, weights_only=True)) for path in (one, other))
    assert first.keys() == second.keys()
    different = [
        key
        for key, value in first.items()
        if not (
            torch.equal(value, second[key])
            if isinstance(value, torch.Tensor)
            else value == second[key]
        )
    ]
    assert [key for key in different if "OUTPUT_DIR" not in key] == []


def scalars(folder: Path) -> list[dict[str, float]]:
    """metrics.json without times and memory; NaN, which is unequal to itself, as text."""
    return [
        {key: str(value) for key, value in line.items() if not key.endswith(_COSTS)}
        for line in read_metrics(folder / "metrics.json")
    ]


@pytest.fixture
def dropout_cfg(toy_voc, make_cfg):
    """LDVC with every kind of dropout, an evaluation in mid-training and short periods."""

    def make(*overrides: object) -> CfgNode:
        return make_cfg(
            *("MODEL.TEXT_PROMPTS.LENGTH", 4, "MODEL.TEXT_PROMPTS.DROPOUT", 0.1),
            *("MODEL.VISUAL_PROMPTS.DROPOUT", 0.1, "MODEL.LDVC.DROPOUT", 0.1),
            *("SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 2),
            *("TEST.EVAL_PERIOD", 3, "SOLVER.CHECKPOINT_BEST", "mIoU"),
            *("SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, *overrides),
        )

    return make


@pytest.fixture
def whole(dropout_cfg, tmp_path) -> Path:
    train(dropout_cfg(), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(dropout_cfg, whole, tmp_path):
    """Stopped four times, by turns without a word and with a signal."""
    folder = tmp_path / "stopped"
    for killed, stopped in ((0, 1), (3, 4)):
        with pytest.raises(KeyboardInterrupt):
            train(dropout_cfg(), folder, kill=KillAt(killed, None))
        with pytest.raises(Interrupted) as ended:
            train(dropout_cfg(), folder, kill=KillAt(stopped, signal.SIGTERM))
        assert ended.value.code == 143
        assert (folder / "last_checkpoint").read_text() == f"model_{stopped:07d}.pth"
    train(dropout_cfg("DATALOADER.NUM_WORKERS", 2), folder)
    assert_same_checkpoint_but_workers(whole, folder)
    assert scalars(folder) == scalars(whole)
    results = [json.loads((f / "results.json").read_text()) for f in (whole, folder)]
    assert results[0]["zss_voc_val"] == results[1]["zss_voc_val"]


def assert_same_checkpoint_but_workers(whole: Path, folder: Path) -> None:
    for name in ("model_final.pth", "model_best.pth"):
        first, second = (torch.load(f / name, weights_only=True) for f in (whole, folder))
        for content in (first, second):
            content["trainer"]["settings"].pop("DATALOADER.NUM_WORKERS")
            torch.save(content, folder.parent / f"{content is first}.pth")
        assert_same_checkpoint(folder.parent / "True.pth", folder.parent / "False.pth")


@pytest.mark.slow
def test_a_signal_in_an_evaluation_leaves_the_evaluation_to_the_next_start(
    dropout_cfg, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "stopped"
    build = ZeroShotTrainer.build_evaluator

    def interrupt_once(*args):
        monkeypatch.setattr(ZeroShotTrainer, "build_evaluator", build)
        os.kill(os.getpid(), signal.SIGINT)
        return build(*args)

    monkeypatch.setattr(ZeroShotTrainer, "build_evaluator", interrupt_once)
    with pytest.raises(Interrupted) as stopped:
        train(dropout_cfg(), folder)
    assert stopped.value.code == 130
    assert (folder / "last_checkpoint").read_text() == "model_0000002.pth"
    assert [line["iteration"] for line in scalars(folder)] == ["0", "1", "2"]
    train(dropout_cfg(), folder)
    assert_same_checkpoint(whole / "model_final.pth", folder / "model_final.pth")
    assert_same_checkpoint(whole / "model_best.pth", folder / "model_best.pth")
    assert scalars(folder) == scalars(whole)


@pytest.mark.slow
def test_the_bank_of_global_learning_goes_on(make_cfg, tmp_path, monkeypatch):
    """It is no weight, and yet the losses depend on it."""
    mini = load_benchmark("mini")
    for split, count in (("train", 8), ("val", 2)):
        write_split(mini.splits[split], count, tmp_path / "data/zss/mini")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    cfg = make_cfg()
    cfg.merge_from_file(str(ROOT / "configs/clip_zss_mini.yaml"))
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4, "SOLVER.IMS_PER_BATCH", 4, "DATASETS.TEST", ()])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0])
    train(cfg, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(cfg, tmp_path / "stopped", kill=KillAt(1, signal.SIGTERM))
    state = stored_training_state(tmp_path / "stopped/model_0000001.pth")
    assert any(len(memory["bank"]) for memory in state["memory"].values())
    train(cfg, tmp_path / "stopped")
    assert_same_checkpoint(tmp_path / "whole/model_final.pth", tmp_path / "stopped/model_final.pth")


@pytest.fixture
def begun(toy_voc, make_cfg, tmp_path):
    """``begun(KEY, value...)``: config with the folder of a run of four iterations."""

    def make(*overrides: object) -> CfgNode:
        return make_cfg(
            *("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ()),
            *("DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", str(tmp_path / "run"), *overrides),
        )

    train(make(), tmp_path / "run", kill=None)
    return make


def last_rate(folder: Path) -> float:
    return read_metrics(folder / "metrics.json")[-1]["lr"]


def test_what_may_change_takes_effect_and_is_logged(begun, tmp_path, caplog):
    folder = tmp_path / "run"
    trainer = train(
        begun(
            *("SOLVER.MAX_ITER", 8, "SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY", 0.25),
            *("SOLVER.POLY_POWER", 0.0, "SOLVER.WARMUP_ITERS", 0, "SOLVER.MIN_LR", 0.0),
            *("SOLVER.LR_FACTORS", [["decoder", 0.5]]),
        ),
        folder,
    )
    assert trainer.iter == 8
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {0.5, 0.25}
    assert {g["weight_decay"] for g in trainer.optimizer.param_groups} == {0.25, 0.0}
    assert last_rate(folder) in rates
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {8}
    assert "SOLVER.BASE_LR was 0.001 and is 0.5" in caplog.text


def test_what_makes_another_run_is_refused_and_a_switch_allows_it(begun, tmp_path, caplog):
    cfg = begun("SOLVER.MAX_ITER", 6, "SEED", 3, "SOLVER.IMS_PER_BATCH", 2)
    message = r"IMS_PER_BATCH was 4 and is 2, SEED was 0 and is 3; .*--allow-changes"
    with pytest.raises(ZssError, match=message):
        train(cfg, tmp_path / "run")
    with pytest.raises(ZssError, match=message):
        require_folder_for_training(cfg, resume=True, overwrite=False, allow_changes=False)
    require_folder_for_training(cfg, resume=True, overwrite=False, allow_changes=True)
    trainer = train(cfg, tmp_path / "run", allow_changes=True)
    assert "no longer the run that was started" in caplog.text
    # Four batches of four, then two of two.
    state = stored_training_state(tmp_path / "run/model_final.pth")
    assert (state["images_drawn"], state["seed"], trainer.iter) == (20, 3, 6)


@pytest.mark.parametrize("state", ["auto", "of an earlier version"])
def test_a_precision_by_another_name_is_no_change(begun, tmp_path, caplog, state):
    checkpoint = tmp_path / "run/model_final.pth"
    cfg = begun("SOLVER.MAX_ITER", 5, "MODEL.AUTOCAST", "float32")
    if state == "of an earlier version":
        content = torch.load(checkpoint, weights_only=True)
        del content["trainer"]["precision"]
        content["trainer"]["settings"]["MODEL.AUTOCAST"] = ""
        torch.save(content, checkpoint)
    caplog.clear()
    with caplog.at_level("WARNING"):
        train(cfg, tmp_path / "run")
    assert "From here on: SOLVER.MAX_ITER was 4 and is 5" in caplog.text
    assert "AUTOCAST" not in caplog.text
    assert "before they did" not in caplog.text


def test_another_precision_is_said(begun, tmp_path, caplog):
    train(begun("SOLVER.MAX_ITER", 5, "MODEL.AUTOCAST", "bfloat16"), tmp_path / "run")
    said = "From here on, networks compute in bfloat16, before they did in float32"
    assert said in caplog.text
    assert "MODEL.AUTOCAST was" not in caplog.text


def test_a_run_that_ends_before_its_checkpoint_is_refused(begun):
    cfg = begun("SOLVER.MAX_ITER", 3)
    with pytest.raises(ZssError, match="MAX_ITER is 3, but .* has 4 iterations behind it; raise"):
        require_folder_for_training(cfg, resume=True, overwrite=False, allow_changes=False)


def test_other_images_are_another_run(begun, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run/model_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    content["trainer"]["images"] = "others"
    torch.save(content, checkpoint)
    with pytest.raises(ZssError, match="other images than DATASETS.TRAIN has now"):
        train(begun("SOLVER.MAX_ITER", 5), tmp_path / "run")


def test_another_number_of_processes_is_said(begun, tmp_path, caplog):
    checkpoint = tmp_path / "run/model_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    content["trainer"]["processes"] = 8
    torch.save(content, checkpoint)
    train(begun("SOLVER.MAX_ITER", 5), tmp_path / "run")
    assert "had 8 processes and has 1 now: it goes on with the same images" in caplog.text


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_warning(begun, tmp_path, caplog):
    checkpoint = tmp_path / "run/model_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    for key in ("seed", "images", "images_drawn", "processes", "settings", "trained", "memory"):
        del content["trainer"][key]
    torch.save(content, checkpoint)
    trainer = train(begun("SOLVER.MAX_ITER", 5), tmp_path / "run")
    assert trainer.iter == 5
    assert "of an earlier version: it does not go on exactly" in caplog.text
    assert stored_training_state(checkpoint)["images_drawn"] == 5 * 4


def test_training_anew_where_a_run_has_been_needs_a_switch(begun, tmp_path):
    cfg, folder = begun(), tmp_path / "run"
    switches = {"resume": False, "allow_changes": False}
    with pytest.raises(ZssError, match="holds a finished run; .*--resume .*--overwrite"):
        require_folder_for_training(cfg, overwrite=False, **switches)
    (folder / "model_final.pth").unlink()
    with pytest.raises(ZssError, match="holds checkpoints of a run"):
        require_folder_for_training(cfg, overwrite=False, **switches)
    mine = [folder / name for name in ("notes.txt", "model_of_mine.pth", "model_3_tuned.pth")]
    for path in mine:
        path.write_text("mine")
    require_folder_for_training(cfg, overwrite=True, **switches)
    left = {path.name for path in folder.iterdir()}
    assert not {"last_checkpoint", "metrics.json"} & left
    assert all(path.exists() for path in mine)
    assert not [name for name in left - {p.name for p in mine} if name.startswith("model_")]
    require_folder_for_training(cfg, overwrite=False, **switches)


def test_metrics_are_cut_where_they_will_be_written_again(tmp_path):
    path = tmp_path / "metrics.json"
    lines = [json.dumps({"iteration": i, "loss": 1.0}) + "\n" for i in (19, 39, 59)]
    path.write_text("".join(lines) + '{"iteration": 79, "lo')
    opened = path.open("a")
    rewind_metrics(path, 80)
    assert path.read_text() == "".join(lines)
    rewind_metrics(path, 40)
    opened.write("new\n")
    opened.close()
    assert path.read_text() == "".join(lines[:2]) + "new\n"
    assert [line["iteration"] for line in read_metrics(path)] == [19, 39]
    rewind_metrics(tmp_path / "none.json", 3)
    assert read_metrics(tmp_path / "none.json") == []


def test_settings_scaled_to_another_number_of_processes_are_another_run(begun, tmp_path):
    """With SOLVER.REFERENCE_WORLD_SIZE the batch, and what an iteration is, depend on it."""
    checkpoint = tmp_path / "run/model_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    content["trainer"]["settings"] |= {"SOLVER.REFERENCE_WORLD_SIZE": 2, "SOLVER.IMS_PER_BATCH": 8}
    torch.save(content, checkpoint)
    cfg = begun("SOLVER.REFERENCE_WORLD_SIZE", 2, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.MAX_ITER", 8)
    with pytest.raises(ZssError, match="SOLVER.IMS_PER_BATCH was 8 and is 4"):
        train(cfg, tmp_path / "run")


def test_a_run_without_a_seed_keeps_the_one_it_has_drawn(toy_voc, make_cfg, tmp_path, monkeypatch):
    def cfg(iterations: int) -> CfgNode:
        loader = ("DATALOADER.NUM_WORKERS", 0, "DATASETS.TEST", ())
        return make_cfg("SEED", -1, "SOLVER.MAX_ITER", iterations, *loader)

    for number, iterations in ((7, 1), (8, 2)):
        monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda seed=number: seed)
        train(cfg(iterations), tmp_path / "run")
    assert stored_training_state(tmp_path / "run/model_final.pth")["seed"] == 7
