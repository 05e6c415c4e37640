"""The standard training job: arguments, set-up, trainer, predictor."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data import transforms as T
from detectron2.engine import hooks
from detectron2.engine.train_loop import AMPTrainer, SimpleTrainer, TrainerBase
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_logger = logging.getLogger(__name__)


def create_ddp_model(model: nn.Module, **kwargs: Any) -> nn.Module:
    """The model, in ``DistributedDataParallel(model, **kwargs)`` if there are more processes.

    A model on a GPU is bound to the one of this process; a model on the CPU stays there.
    """
    if comm.get_world_size() == 1:
        return model
    if any(parameter.is_cuda for parameter in model.parameters()):
        kwargs.setdefault("device_ids", [comm.get_local_rank()])
    return DistributedDataParallel(model, **kwargs)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Parser of the arguments that every training script has."""
    program = sys.argv[0]
    examples = (
        f"examples:\n  {program} --config-file cfg.yaml --num-gpus 8 SOLVER.BASE_LR 0.001\n"
        f"  {program} --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT ..."
    )
    parser = argparse.ArgumentParser(
        epilog=epilog or examples, formatter_class=argparse.RawDescriptionHelpFormatter
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
    """Start of every job: log files, environment, OUTPUT_DIR/config.yaml, seeds, cuDNN settings.

    Rank r gets the seed SEED + r, a random one if SEED is negative.
    """
    rank = comm.get_rank()
    if comm.is_main_process():
        PathManager.mkdirs(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    logger.info("Process %d of %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if config_file := getattr(args, "config_file", ""):
        with PathManager.open(config_file, "r") as file:
            logger.info("Contents of %s:\n%s", config_file, file.read())
    if comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
        with PathManager.open(path + ".tmp", "w") as file:
            file.write(cfg.dump())
        os.replace(path + ".tmp", path)
        logger.info("Full config, saved to %s:\n%s", path, cfg.dump())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    # Its search for the fastest kernels does not pay in an evaluation of many sizes.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and torch.cuda.is_available():
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the log, to ``output_dir``/metrics.json and to TensorBoard."""
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


class DefaultPredictor:
    """The model of a config with its MODEL.WEIGHTS, for one image at a time.

    Resizes by INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST.
    """

    def __init__(self, cfg: CfgNode) -> None:
        assert cfg.INPUT.FORMAT in ("RGB", "BGR"), cfg.INPUT.FORMAT
        self.cfg = cfg.clone()
        self.model = build_model(self.cfg).eval()
        if cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.aug = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT

    @torch.no_grad()
    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """Prediction for an image (H, W, 3), uint8 in BGR order."""
        height, width = original_image.shape[:2]
        image = original_image[:, :, ::-1] if self.input_format == "RGB" else original_image
        image = self.aug.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
        return self.model([{"image": tensor, "height": height, "width": width}])[0]


def _of_inner_trainer(name: str) -> property:
    return property(
        lambda self: getattr(self._trainer, name),
        lambda self, value: setattr(self._trainer, name, value),
    )


class DefaultTrainer(TrainerBase):
    """Training as the config says. Override the ``build_*`` methods to change a part of it.

    By default these call the functions of that name; the loaders need an override that passes a
    mapper, and the evaluator has no default.

    Attributes:
        cfg, scheduler, checkpointer; model, data_loader, optimizer: those of the inner trainer.
    """

    model = _of_inner_trainer("model")
    data_loader = _of_inner_trainer("data_loader")
    optimizer = _of_inner_trainer("optimizer")

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model, broadcast_buffers=False)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, if there is one; else load the weights.

        ``resume=False`` always loads MODEL.WEIGHTS and starts from iteration 0.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            # The iteration in the checkpoint is done.
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """Timing, schedule, checkpoints, evaluation, writing: in this order."""
        solver = self.cfg.SOLVER
        chain: list[hooks.HookBase | None] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            # Before the evaluation: if that fails, the model is there to look at.
            chain.append(hooks.PeriodicCheckpointer(self.checkpointer, solver.CHECKPOINT_PERIOD))
        chain.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():
            chain.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return chain

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """``default_writers`` in OUTPUT_DIR."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> dict[str, Any] | None:
        """Train; returns the last results on rank 0 if TEST.EXPECTED_RESULTS checks them."""
        super().train(self.start_iter, self.max_iter)
        if not (self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process()):
            return None
        assert hasattr(self, "_last_eval_results"), "no evaluation to compare with expectations"
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def run_step(self) -> None:
        """One iteration of the inner trainer."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        """State of the loop, the hooks and the inner trainer."""
        return super().state_dict() | {"_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_model(cfg)
        _logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        raise NotImplementedError(f"{cls.__name__} does not define build_evaluator")

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on DATASETS.TEST with one evaluator each (None: those of ``build_evaluator``).

        Returns:
            {data set: results}, or just the results if there is one data set.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        assert evaluators is None or len(evaluators) == len(names), (
            f"{len(evaluators)} evaluators for {len(names)} data sets"
        )
        results: dict[str, Any] = {}
        for index, name in enumerate(names):
            loader = cls.build_test_loader(cfg, name)
            try:
                evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            except NotImplementedError as error:
                _logger.warning("%s is not evaluated: %s", name, error)
                results[name] = {}
                continue
            results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                assert isinstance(results[name], dict), f"no dict of results: {results[name]!r}"
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
