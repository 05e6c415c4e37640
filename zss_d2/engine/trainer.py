"""Detectron2's default trainer, wired for zero-shot segmentation."""

from __future__ import annotations

import logging
import math
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zss_d2.data.loader import build_train_loader
from zss_d2.data.mapper import ZeroShotMapper
from zss_d2.engine import optim
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.random_streams import undisturbed
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator, write_results
from zss_d2.evaluation.results import collect_provenance, describe_protocol, protocol_of


class ZeroShotTrainer(DefaultTrainer):
    """Trains any meta-architecture of zss_d2; multi-process also on CPU."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own constructor cannot wrap a CPU model for several processes.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = wrap_for_processes(model)
        step = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = step(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = ZeroShotCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def run_step(self) -> None:
        """One iteration; a loss that is not finite ends the run, the last checkpoint stays."""
        try:
            super().run_step()
        except FloatingPointError as error:
            raise ZssError(
                f"{error}; lower SOLVER.BASE_LR (now {self.cfg.SOLVER.BASE_LR}) or turn on "
                f"SOLVER.CLIP_GRADIENTS, then go on from {self.cfg.OUTPUT_DIR} with --resume"
            ) from error

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's, but no evaluation is overtaken by the next before metrics are written."""
        built = super().build_hooks()
        for hook in built:
            if isinstance(hook, PeriodicWriter):
                hook._period = math.gcd(hook._period, self.cfg.TEST.EVAL_PERIOD)
        return built

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        if cfg.MODEL.COMPILE:
            compile_parts(model, cfg.MODEL.COMPILE)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return optim.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return optim.build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        workers = comm.get_world_size()
        if cfg.SOLVER.IMS_PER_BATCH % workers:
            raise ZssError(
                f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {workers} processes "
                "cannot share evenly; give a multiple"
            )
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        mapper = ZeroShotMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ZeroShotSemSegEvaluator:
        return ZeroShotSemSegEvaluator(
            dataset_name,
            output_dir=cfg.OUTPUT_DIR,
            protocol=describe_protocol(protocol_of(cfg)),
            per_image=cfg.TEST.PER_IMAGE,
            predictions=cfg.TEST.PREDICTIONS,
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Any = None,
        *,
        checkpoint: str = "",
        iteration: int | None = None,
    ) -> OrderedDict:
        """Evaluate on every set of ``DATASETS.TEST`` and write ``OUTPUT_DIR/results.json``.

        Args:
            checkpoint, iteration: file that the weights come from and how long they were trained;
                found by themselves during training.
        """
        share_buffers(model)
        # In the middle of a training it must not change what the training draws next.
        with undisturbed():
            results = super().test(cfg, model, evaluators)
        names = cfg.DATASETS.TEST
        if names and comm.is_main_process():
            by_name = dict(results) if len(names) > 1 else {names[0]: results}
            if has_event_storage():
                # The storage counts from 0 within the loop and is one further after it.
                iteration = min(get_event_storage().iter + 1, cfg.SOLVER.MAX_ITER)
                checkpoint = _saved_checkpoint(cfg, iteration)
            write_results(
                Path(cfg.OUTPUT_DIR) / "results.json",
                {name: result["sem_seg"] for name, result in by_name.items()},
                collect_provenance(cfg, checkpoint, iteration),
            )
        return results


def wrap_for_processes(model: nn.Module) -> nn.Module:
    """DistributedDataParallel if there are several processes, on GPU or CPU."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [comm.get_local_rank()] if on_gpu else None
    return DistributedDataParallel(
        model,
        device_ids=device_ids,
        broadcast_buffers=False,
        find_unused_parameters=model.find_unused_parameters,
    )


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first one, which are those that checkpoints hold.

    In training the statistics of batch norm are each process's own; tested with them, every process
    would score its share of the images with another model.
    """
    if comm.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.numel() > 0:
            torch.distributed.broadcast(buffer, src=0)


def compile_parts(model: nn.Module, backend: str) -> None:
    """Have `torch.compile` take over the forward pass of every part, in place.

    Not of the whole: its python code, which loops over images, would only break the graphs.

    Raises:
        ZssError: unknown backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ZssError(f"MODEL.COMPILE is {backend!r}; use one of {', '.join(known)}, or ''")
    for part in model.children():
        part.compile(backend=backend)


def _saved_checkpoint(cfg: CfgNode, iteration: int) -> str:
    """File that the checkpoint hook, which runs before evaluation, has written at ``iteration``."""
    if iteration >= cfg.SOLVER.MAX_ITER:
        return str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    if iteration % cfg.SOLVER.CHECKPOINT_PERIOD == 0:
        return str(Path(cfg.OUTPUT_DIR) / f"model_{iteration - 1:07d}.pth")
    return ""


def evaluate(cfg: CfgNode, resume: bool) -> OrderedDict:
    """``--eval-only``: build the model, load ``MODEL.WEIGHTS`` (or the last checkpoint), test."""
    model = ZeroShotTrainer.build_model(cfg)
    checkpointer = ZeroShotCheckpointer(model, cfg.OUTPUT_DIR)
    resume = resume and checkpointer.has_checkpoint()
    checkpoint = checkpointer.get_checkpoint_file() if resume else cfg.MODEL.WEIGHTS
    if not checkpoint and any(p.requires_grad for p in model.parameters()):
        logging.getLogger(__name__).warning(
            "MODEL.WEIGHTS is empty: evaluating a model without trained weights"
        )
    extra = checkpointer.load(checkpoint, checkpointables=[])
    iteration = extra["iteration"] + 1 if "iteration" in extra else None
    return ZeroShotTrainer.test(cfg, model, checkpoint=checkpoint, iteration=iteration)
