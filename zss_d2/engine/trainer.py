"""Detectron2's default trainer, wired for zero-shot segmentation."""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from torch import nn

from zss_d2.data.pipeline.loader import build_train_loader
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.pipeline.stream import ResumableLoader
from zss_d2.data.pipeline.workers import UndisturbedLoader, pinned
from zss_d2.engine import optimizer as optim
from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.hooks import (
    WINDOW,
    BestCheckpoint,
    Checkpoints,
    Costs,
    MetricsWithoutGap,
    StopOnSignal,
)
from zss_d2.engine.last_checkpoint import how_to_go_on
from zss_d2.engine.processes import interrupt
from zss_d2.engine.processes.ranks import share_buffers, wrap_for_processes
from zss_d2.engine.resume import rewind_metrics
from zss_d2.engine.run_state import RunState
from zss_d2.engine.self_training import SelfTrainingSteps, require_possible
from zss_d2.engine.step import TrainingStep
from zss_d2.engine.testing import record_results, showing_examples, stopping_between_images
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator
from zss_d2.evaluation.results import describe_protocol, protocol_of
from zss_d2.modeling.inference import InferenceProtocol
from zss_d2.modeling.precision import Precision
from zss_d2.utils.random_streams import STEP, seed_streams

logger = logging.getLogger(__name__)

# How long the other processes give rank 0 to save after a signal in the middle of an evaluation.
SAVING_S = 60.0


class ZeroShotTrainer(DefaultTrainer):
    """Trains any meta-architecture of zss_d2; multi-process also on CPU."""

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own constructor cannot wrap a CPU model for several processes.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        require_possible(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = wrap_for_processes(model)
        parts, amp = cfg.SOLVER.ACCUMULATE, cfg.SOLVER.AMP.ENABLED
        self._trainer = TrainingStep(model, loader, optimizer, parts=parts, amp=amp)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = ZeroShotCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.run_state = RunState(cfg, loader)
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True, *, allow_changes: bool = False) -> None:
        """As upstream; a resumed run goes on as if it had never stopped.

        Args:
            allow_changes: let settings differ that make it another run, see `check_settings`.

        Raises:
            ZssError: settings or training images differ, or the checkpoint is no whole one.
        """
        self.run_state.allow_changes = allow_changes
        if resume and not self.checkpointer.has_checkpoint():
            logger.info("%s holds no checkpoint: starting at iteration 0", self.cfg.OUTPUT_DIR)
        super().resume_or_load(resume)
        # A stop writes a line of its own, out of turn.
        lines = self._line_period
        rewind_metrics(self._metrics_file, self.start_iter // lines * lines)

    def train(self) -> Any:
        """Train; a signal ends it after the running iteration, with a checkpoint.

        Raises:
            Interrupted: after a signal.
        """
        try:
            # The backward pass, which is outside of the model, is to be as the forward pass.
            precision = Precision.from_config(self.cfg)
            with interrupt.deferred(), precision.outside_networks():
                return super().train()
        except BaseException as error:
            # What a signal breaks may end otherwise, too.
            if interrupt.requested() is not None and not getattr(error, "saved", False):
                self._save_at_once()
            raise

    def _save_at_once(self) -> None:
        """Rank 0 saves what the last iteration has left; the others wait to be ended.

        They cannot agree on a point of time: an evaluation is broken off wherever each of them is.
        """
        if not comm.is_main_process():
            launcher, end = os.getppid(), time.monotonic() + SAVING_S
            while os.getppid() == launcher and time.monotonic() < end:
                time.sleep(0.2)
        elif self.run_state.finished_iter == self.iter:
            self._checkpoints.save()

    def state_dict(self) -> dict[str, Any]:
        """Upstream's, and all that images, random numbers and settings follow from."""
        model = self.checkpointer.model
        return super().state_dict() | self.run_state.state_dict(model, self.optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`, and of earlier versions'."""
        model = self.checkpointer.model
        self.run_state.compare(state_dict)
        inner = dict(state_dict["_trainer"])
        inner["optimizer"] = optim.resumed_state(
            self.optimizer,
            optim.parameter_names(self.optimizer, model),
            inner["optimizer"],
            state_dict.get("trained"),
        )
        super().load_state_dict({**state_dict, "_trainer": inner})
        self.scheduler.apply()
        self.run_state.load_state_dict(state_dict, model)

    def run_step(self) -> None:
        """One iteration; a loss that is not finite ends the run, the last checkpoint stays."""
        seed_streams(STEP, self.run_state.seed, self.iter, comm.get_rank())
        try:
            super().run_step()
        except FloatingPointError as error:
            raise ZssError(
                f"{error}; lower SOLVER.BASE_LR (now {self.cfg.SOLVER.BASE_LR}) or turn on "
                f"SOLVER.CLIP_GRADIENTS, then {how_to_go_on(Path(self.cfg.OUTPUT_DIR))}"
            ) from error
        self.run_state.finish(self.iter)

    @property
    def _line_period(self) -> int:
        """Iterations between lines of metrics; no evaluation is overtaken by the next one."""
        return math.gcd(WINDOW, self.cfg.TEST.EVAL_PERIOD)

    @property
    def _metrics_file(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR) / "metrics.json"

    def build_writers(self) -> list[EventWriter]:
        self._writers = super().build_writers()
        return self._writers

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's, with this project's checkpoints, and those of `zss_d2.engine.hooks`."""
        solver, period = self.cfg.SOLVER, self.cfg.TEST.EVAL_PERIOD
        self._checkpoints = Checkpoints(
            self.checkpointer,
            solver.CHECKPOINT_PERIOD,
            solver.CHECKPOINT_MINUTES,
            solver.CHECKPOINT_KEEP,
        )
        self._writers: list[EventWriter] = []
        built = [h for h in super().build_hooks() if not isinstance(h, PeriodicCheckpointer)]
        lines = self._line_period
        for hook in built:
            if isinstance(hook, PeriodicWriter):
                hook._period = lines
        # Checkpoints before the evaluation: if that fails, the model is there to look at.
        evaluation = next(i for i, hook in enumerate(built) if isinstance(hook, EvalHook))
        own: list[HookBase] = []
        model = self.checkpointer.model
        if getattr(model, "self_training", None) is not None:
            own.append(SelfTrainingSteps(model, lines))
        own += [self._checkpoints] if comm.is_main_process() else []
        built[evaluation:evaluation] = [*own, StopOnSignal(self._checkpoints.save)]
        if comm.is_main_process():  # behind the evaluation, before the writers
            built.insert(len(built) - 1, Costs(lines, self.cfg.MODEL.DEVICE))
        self._best = None
        if solver.CHECKPOINT_BEST and comm.is_main_process():
            self._best = BestCheckpoint(
                self.checkpointer, period, self._best_metric, self._best_name
            )
            built.insert(len(built) - 1, self._best)
        return [
            *built[:evaluation],
            MetricsWithoutGap(self._writers, lines, self._evaluate_now, period, self._metrics_file),
            *built[evaluation:],
        ]

    def _evaluate_now(self) -> None:
        """What upstream's hook for evaluation does, outside its turn."""
        self._last_eval_results = self.test(self.cfg, self.model)
        for name, value in flatten_results_dict(self._last_eval_results or {}).items():
            get_event_storage().put_scalar(name, float(value), smoothing_hint=False)
        if self._best is not None:
            self._best.update()
        comm.synchronize()

    def _best_metric(self) -> float:
        results = flatten_results_dict(self._last_eval_results)
        return float(results.get(self._best_name, math.nan))

    @property
    def _best_name(self) -> str:
        """What metrics.json calls the metric."""
        names, metric = self.cfg.DATASETS.TEST, f"sem_seg/{self.cfg.SOLVER.CHECKPOINT_BEST}"
        return metric if len(names) == 1 else f"{names[0]}/{metric}"

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
    def build_train_loader(cls, cfg: CfgNode) -> ResumableLoader:
        batch, processes, parts = (
            cfg.SOLVER.IMS_PER_BATCH,
            comm.get_world_size(),
            cfg.SOLVER.ACCUMULATE,
        )
        if batch % (processes * parts):
            shared = f"{parts} parts (SOLVER.ACCUMULATE) of " if parts > 1 else ""
            raise ZssError(
                f"SOLVER.IMS_PER_BATCH is {batch}, which {shared}{processes} processes cannot "
                "share evenly; give a multiple"
            )
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        mapper = ZeroShotMapper(cfg, is_train=False)
        loader = build_detection_test_loader(
            cfg,
            dataset_name,
            mapper=mapper,
            batch_size=InferenceProtocol.from_config(cfg).batch_on(cfg.MODEL.DEVICE),
        )
        return UndisturbedLoader(pinned(loader, cfg.MODEL.DEVICE))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, doubts: Sequence[str] = ()
    ) -> ZeroShotSemSegEvaluator:
        return ZeroShotSemSegEvaluator(
            dataset_name,
            output_dir=cfg.OUTPUT_DIR,
            protocol=describe_protocol(protocol_of(cfg, doubts)),
            per_image=cfg.TEST.PER_IMAGE,
            predictions=cfg.TEST.PREDICTIONS,
            fragmentation=cfg.TEST.FRAGMENTATION,
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
        # What the loaded weights say of themselves; a model of somebody else's does not.
        doubts = getattr(getattr(model, "module", model), "doubts", ())
        if doubts and evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name, doubts) for name in cfg.DATASETS.TEST]
        with (
            interrupt.deferred(),
            stopping_between_images(model),
            showing_examples(cfg, model),
        ):
            results = super().test(cfg, model, evaluators)
        record_results(cfg, results, checkpoint, iteration, doubts)
        return results


def compile_parts(model: nn.Module, backend: str) -> None:
    """Have `torch.compile` take over the forward pass of every part that has weights, in place.

    Not of the whole: its python code, which loops over images, would only break the graphs; nor of
    losses, whose loops over chunks would be unrolled.

    Raises:
        ZssError: unknown backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ZssError(f"MODEL.COMPILE is {backend!r}; use one of {', '.join(known)}, or ''")
    for part in model.children():
        if any(True for _ in part.parameters()):
            part.compile(backend=backend)


def evaluate(cfg: CfgNode, resume: bool) -> OrderedDict:
    """``--eval-only``: build the model, load ``MODEL.WEIGHTS`` (or the last checkpoint), test."""
    model = ZeroShotTrainer.build_model(cfg)
    checkpointer = ZeroShotCheckpointer(model, cfg.OUTPUT_DIR)
    checkpoint, iteration = checkpointer.load_to_evaluate(cfg.MODEL.WEIGHTS, resume)
    return ZeroShotTrainer.test(cfg, model, checkpoint=checkpoint, iteration=iteration)
