"""Trainers, hooks, start-up and resuming, with a model of one weight or one layer."""

from __future__ import annotations

import json
import logging
import math
import weakref
from itertools import repeat
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    default_argument_parser,
    default_setup,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn


class Weight(nn.Module):
    """loss = w * x, so that a step with rate r changes w by -r * x; predicts w."""

    def __init__(self, cfg=None):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        if self.training:
            return {"loss": self.w * batch}
        return [{"w": self.w.item(), **record} for record in batch]


if "ContractWeight" not in META_ARCH_REGISTRY:
    META_ARCH_REGISTRY._do_register("ContractWeight", Weight)


class WeightEvaluator(DatasetEvaluator):
    def process(self, inputs, outputs):
        self.w = outputs[0]["w"]

    def evaluate(self):
        return {"task": {"w": self.w}}


class Trainer(DefaultTrainer):
    """Trains the weight with x = 1; put together as zss_d2 does, without the constructor."""

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        model = self.build_model(cfg)
        optimizer = torch.optim.SGD(model.parameters(), cfg.SOLVER.BASE_LR)
        self._trainer = SimpleTrainer(model, repeat(torch.tensor(1.0)), optimizer)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[{}]]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return WeightEvaluator()


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ContractWeight"
    cfg.DATASETS.TEST = ("contract_engine",)
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.MAX_ITER = 4
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    return cfg


def simple_trainer(losses: float = 1.0, rate: float = 0.1) -> SimpleTrainer:
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), rate)
    return SimpleTrainer(model, repeat(torch.tensor(losses)), optimizer)


def test_simple_trainer_steps():
    trainer = simple_trainer(losses=2.0)
    trainer.train(0, 3)
    assert trainer.model.w.item() == pytest.approx(1 - 3 * 0.1 * 2)
    assert (trainer.start_iter, trainer.iter, trainer.max_iter) == (0, 3, 3)
    recorded = [
        (round(value, 5), step) for value, step in trainer.storage.history("total_loss").values()
    ]
    assert recorded == [(2.0, 0), (1.6, 1), (1.2, 2)]
    assert len(trainer.storage.history("data_time").values()) == 3


def test_several_losses_are_summed_and_recorded():
    trainer = simple_trainer()
    trainer.model.forward = lambda x: {"a": trainer.model.w * 3, "b": trainer.model.w.detach() * 4}
    trainer.train(0, 4)
    assert trainer.model.w.item() == pytest.approx(1 - 4 * 0.1 * 3)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert latest["total_loss"] == pytest.approx(latest["a"] + latest["b"])
    assert [step for _, step in trainer.storage.history("a").values()] == [0, 1, 2, 3]


def test_loss_that_is_not_finite_ends_the_training():
    trainer = simple_trainer(losses=math.nan)
    with pytest.raises(FloatingPointError, match="loss"):
        trainer.train(0, 2)
    assert trainer.model.w.item() == 1


def test_model_in_eval_mode_is_refused():
    trainer = simple_trainer()
    trainer.model.eval()
    with pytest.raises(AssertionError, match="eval"):
        trainer.train(0, 1)


class Diary(HookBase):
    def __init__(self, name: str, diary: list):
        self.name = name
        self.diary = diary

    def before_train(self):
        self.diary.append(f"{self.name} before_train")

    def before_step(self):
        self.diary.append(f"{self.name} before_step {self.trainer.iter}")

    def after_backward(self):
        self.diary.append(f"{self.name} after_backward")

    def after_step(self):
        self.diary.append(f"{self.name} after_step {self.trainer.storage.iter}")

    def after_train(self):
        self.diary.append(f"{self.name} after_train {self.trainer.iter}")


def test_hooks_run_in_order():
    diary: list[str] = []
    trainer = simple_trainer()
    trainer.register_hooks([Diary("a", diary), None, Diary("b", diary)])
    trainer.train(5, 6)
    moments = ("before_train", "before_step 5", "after_backward", "after_step 5", "after_train 6")
    assert diary == [f"{name} {moment}" for moment in moments for name in "ab"]


def test_after_train_also_follows_a_failure():
    diary: list[str] = []
    trainer = TrainerBase()
    trainer.register_hooks([Diary("a", diary)])
    with pytest.raises(NotImplementedError):
        trainer.train(0, 2)
    assert diary[-1] == "a after_train 0"


@pytest.mark.parametrize(
    ("end", "period", "steps"), [(6, 3, [2, 6]), (7, 3, [2, 5, 7]), (5, 0, [5])]
)
def test_eval_hook(end, period, steps):
    trainer = simple_trainer()
    results = mock.Mock(return_value={"sem_seg": {"mIoU": 3.0}})
    trainer.register_hooks([hooks.EvalHook(period, results)])
    trainer.train(0, end)
    assert results.call_count == len(steps)
    history = trainer.storage.history("sem_seg/mIoU").values()
    assert history == [(3.0, step) for step in steps]


def test_eval_hook_wants_numbers_and_a_successful_training():
    trainer = simple_trainer()
    trainer.register_hooks([hooks.EvalHook(0, lambda: {"task": {"mIoU": "high"}})])
    with pytest.raises(ValueError, match="task/mIoU.*high"):
        trainer.train(0, 1)
    failing = simple_trainer(losses=math.nan)
    evaluation = mock.Mock()
    failing.register_hooks([hooks.EvalHook(0, evaluation)])
    with pytest.raises(FloatingPointError):
        failing.train(0, 2)
    evaluation.assert_not_called()


def test_learning_rate_is_recorded_then_stepped():
    trainer = simple_trainer(rate=1.0)
    trainer.scheduler = scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2)
    trainer.register_hooks([hooks.LRScheduler()])
    trainer.train(0, 4)
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert scheduler.last_epoch == 4


def test_writers_write_periodically_and_at_the_end(cfg, tmp_path, caplog):
    cfg.SOLVER.MAX_ITER, cfg.OUTPUT_DIR = 5, str(tmp_path)
    logging.getLogger("detectron2").propagate = True
    trainer = simple_trainer()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.EvalHook(0, lambda: {"metric": 1.0}),
            hooks.PeriodicWriter(Trainer(cfg).build_writers(), period=2),
        ]
    )
    with caplog.at_level(logging.INFO):
        trainer.train(0, 5)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 3, 4, 5]
    assert "metric" in lines[-1]
    assert all({"total_loss", "data_time"} <= line.keys() for line in lines[:-1])
    assert "time" in lines[1]
    printed = [m for m in caplog.messages if " iter: " in m]
    assert [m.split("iter: ")[1].split()[0] for m in printed] == ["1", "3", "4"]
    assert "eta: 0:00:00" in printed[-1]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_default_trainer_trains_and_resumes(cfg, tmp_path):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert trainer.model is trainer._trainer.model
    trainer.train()
    out = tmp_path / "out"
    assert trainer.model.w.item() == pytest.approx(0.6)
    assert trainer._last_eval_results == {"task": {"w": trainer.model.w.item()}}
    names = {path.name for path in out.glob("*.pth")}
    assert names == {"model_0000001.pth", "model_0000003.pth", "model_final.pth"}
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [3, 4]
    assert lines[-1]["task/w"] == pytest.approx(0.6)

    (out / "last_checkpoint").write_text("model_0000001.pth")
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    assert resumed.model.w.item() == pytest.approx(0.8)
    assert resumed.scheduler.last_epoch == 2
    resumed.train()
    assert resumed.model.w.item() == pytest.approx(0.6)
    assert resumed.iter == 4

    cfg.MODEL.WEIGHTS = str(out / "model_0000001.pth")
    fresh = Trainer(cfg)
    fresh.resume_or_load(resume=False)
    assert fresh.start_iter == 0
    assert fresh.model.w.item() == pytest.approx(0.8)


def test_resuming_a_finished_training_only_evaluates(cfg):
    Trainer(cfg).train()
    again = Trainer(cfg)
    again.resume_or_load(resume=True)
    assert again.start_iter == 4
    again.train()
    assert again.model.w.item() == pytest.approx(0.6)
    assert again._last_eval_results["task"]["w"] == pytest.approx(0.6)


def test_default_trainer_test(cfg):
    trainer = Trainer(cfg)
    assert Trainer.test(cfg, trainer.model) == {"task": {"w": 1.0}}
    assert Trainer.test(cfg, trainer.model, [WeightEvaluator()]) == {"task": {"w": 1.0}}
    cfg.DATASETS.TEST = ("first", "second")
    results = Trainer.test(cfg, trainer.model)
    assert list(results) == ["first", "second"]
    with pytest.raises(AssertionError):
        Trainer.test(cfg, trainer.model, [WeightEvaluator()])


def test_auto_scale_workers(cfg):
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH, solver.BASE_LR, solver.REFERENCE_WORLD_SIZE = 16, 0.1, 8
    solver.MAX_ITER, solver.STEPS, solver.CHECKPOINT_PERIOD = 5000, (4000,), 1000
    solver.WARMUP_ITERS, cfg.TEST.EVAL_PERIOD = 500, 250
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    assert scaled.is_frozen()
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.REFERENCE_WORLD_SIZE) == (32, 0.2, 16)
    assert (solver.MAX_ITER, solver.STEPS, solver.CHECKPOINT_PERIOD) == (2500, (2000,), 500)
    assert (solver.WARMUP_ITERS, scaled.TEST.EVAL_PERIOD) == (250, 125)
    assert cfg.SOLVER.MAX_ITER == 5000
    assert DefaultTrainer.auto_scale_workers(cfg, 8) == cfg


def test_argument_parser():
    parse = default_argument_parser().parse_args
    defaults = parse([])
    assert (defaults.config_file, defaults.resume, defaults.eval_only) == ("", False, False)
    assert (defaults.num_gpus, defaults.num_machines, defaults.machine_rank) == (1, 1, 0)
    assert defaults.dist_url.startswith("tcp://127.0.0.1:")
    given = parse(["--config-file", "a.yaml", "--resume", "--num-gpus", "2", "SEED", "3"])
    assert (given.config_file, given.resume, given.num_gpus) == ("a.yaml", True, 2)
    assert given.opts == ["SEED", "3"]


def test_default_setup(cfg, tmp_path):
    (tmp_path / "a.yaml").write_text("SEED: 5\n")
    cfg.SEED = 5
    default_setup(
        cfg, default_argument_parser().parse_args(["--config-file", str(tmp_path / "a.yaml")])
    )
    out = tmp_path / "out"
    written = get_cfg()
    written.merge_from_file(str(out / "config.yaml"))
    assert written.SEED == 5
    log = (out / "log.txt").read_text()
    for part in ("a.yaml", "PyTorch", "META_ARCHITECTURE"):
        assert part in log
    first = (torch.rand(1).item(), np.random.rand())
    default_setup(cfg, None)
    assert first == (torch.rand(1).item(), np.random.rand())
