"""The standard training job: arguments, set-up, trainer."""

import argparse
import logging
import os
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from detectron2._slice import describe_missing
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import SimpleTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.modeling import build_model
from detectron2.utils import comm, events
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

_logger = logging.getLogger(__name__)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Parser of the arguments that every training script has."""
    parser = argparse.ArgumentParser(
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="path to a config file")
    add("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--num-gpus", type=int, default=1, help="GPUs (or CPU processes) per machine")
    add("--num-machines", type=int, default=1, help="machines in all")
    add("--machine-rank", type=int, default=0, help="rank of this machine, from 0")
    # The same port for a user every time: a job that was left behind shows up as a conflict.
    user = os.getuid() if hasattr(os, "getuid") else 1
    url = f"tcp://127.0.0.1:{49152 + user % 16384}"
    add("--dist-url", default=url, help="where the processes meet; 'auto' finds a free port")
    add("opts", nargs=argparse.REMAINDER, help="changes to the config: KEY VALUE ...")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Start of every job: log files, environment, OUTPUT_DIR/config.yaml, seeds, cuDNN settings."""
    rank = comm.get_rank()
    PathManager.mkdirs(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    logger.info("Process %d of %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with PathManager.open(path, "w") as file:
            file.write(cfg.dump())
        logger.info("Full config, saved to %s:\n%s", path, cfg.dump())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    # Its search for the fastest kernels does not pay in an evaluation of many sizes.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


class DefaultTrainer(TrainerBase):
    """Training as the config says, for subclasses that put its parts together.

    Their constructor calls that of ``TrainerBase``, sets the attributes below and registers
    ``build_hooks()``; they define ``build_test_loader`` and ``build_evaluator``.
    """

    cfg: CfgNode
    checkpointer: DetectionCheckpointer
    scheduler: LRScheduler
    _trainer: SimpleTrainer

    model = property(attrgetter("_trainer.model"))
    optimizer = property(attrgetter("_trainer.optimizer"))

    build_model = staticmethod(build_model)

    def __init__(self, cfg: CfgNode) -> None:
        raise NotImplementedError(describe_missing("the constructor of DefaultTrainer"))

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, else start with MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # The iteration in the checkpoint is done.
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Timing, schedule, checkpoints, evaluation, writing: in this order."""
        chain: list[hooks.HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            # Before the evaluation: if that fails, the model is there to look at.
            period = self.cfg.SOLVER.CHECKPOINT_PERIOD
            chain.append(hooks.PeriodicCheckpointer(self.checkpointer, period))
        chain.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():
            chain.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return chain

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[events.EventWriter]:
        """Writers to the log, to OUTPUT_DIR/metrics.json and to TensorBoard."""
        folder = self.cfg.OUTPUT_DIR
        PathManager.mkdirs(folder)
        return [
            events.CommonMetricPrinter(self.max_iter),
            events.JSONWriter(os.path.join(folder, "metrics.json")),
            events.TensorboardXWriter(folder),
        ]

    def train(self) -> None:
        """Train; NotImplementedError at once if TEST.EXPECTED_RESULTS wants results checked."""
        if self.cfg.TEST.EXPECTED_RESULTS:
            raise NotImplementedError(describe_missing("TEST.EXPECTED_RESULTS"))
        super().train(self.start_iter, self.max_iter)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        raise NotImplementedError(f"{cls.__name__} does not define build_evaluator")

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on DATASETS.TEST with one evaluator each (None: those of ``build_evaluator``).

        Returns {data set: results}, or just the results if there is one data set.
        """
        names = cfg.DATASETS.TEST
        assert evaluators is None or len(evaluators) == len(names), (
            f"{len(evaluators)} evaluators for {len(names)} data sets"
        )
        results: dict[str, Any] = {}
        for index, name in enumerate(names):
            loader = cls.build_test_loader(cfg, name)
            evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                _logger.info("Results for %s in csv format:", name)
                print_csv_format(results[name])
        return results[names[0]] if len(names) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Config for ``num_workers`` processes with the batch per process of the given one.

        SOLVER.REFERENCE_WORLD_SIZE says how many processes the given config is for; 0: no change.
        Batch and rate grow with the number of processes, iteration counts shrink.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference in (0, num_workers):
            return cfg
        assert cfg.SOLVER.IMS_PER_BATCH % reference == 0, (
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide over the "
            f"SOLVER.REFERENCE_WORLD_SIZE {reference}"
        )
        scale = num_workers / reference
        scaled = cfg.clone()
        scaled.defrost()
        solver = scaled.SOLVER
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR *= scale
        solver.REFERENCE_WORLD_SIZE = num_workers
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            solver[key] = round(solver[key] / scale)
        scaled.TEST.EVAL_PERIOD = round(scaled.TEST.EVAL_PERIOD / scale)
        _logger.info("Config scaled from %d to %d processes: %s", reference, num_workers, solver)
        if cfg.is_frozen():
            scaled.freeze()
        return scaled
