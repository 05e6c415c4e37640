"""How far a run is, and what its images, random numbers and settings follow from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from zss_d2.config.rules import flatten
from zss_d2.data.pipeline.stream import ResumableLoader
from zss_d2.engine import optimizer as optim
from zss_d2.engine.resume import check_settings, log_changes, precision_of, without_precision
from zss_d2.errors import ZssError
from zss_d2.modeling.precision import Precision

logger = logging.getLogger(__name__)


class RunState:
    """How far a run is, and of which images and settings; the same on all processes.

    Args:
        cfg: of the run.
        loader: its stream is moved to where a checkpoint left it.

    Attributes:
        finished_iter: the last iteration that is done, counted from 0; -1: none.
        images_drawn: images of the stream that all processes have trained on.
        allow_changes: go on with settings that make it another run, see `check_settings`.
    """

    def __init__(self, cfg: CfgNode, loader: ResumableLoader):
        self.cfg = cfg
        self.finished_iter = -1
        self.images_drawn = 0
        self.allow_changes = False
        self._settings = flatten(cfg)
        self._precision = Precision.from_config(cfg).in_words(training=True)
        self._stream = loader.stream
        self._images = loader.images

    @property
    def seed(self) -> int:
        return self._stream.seed

    def finish(self, iteration: int) -> None:
        """Count an iteration."""
        self.images_drawn += self.cfg.SOLVER.IMS_PER_BATCH
        self.finished_iter = iteration

    def state_dict(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """What a checkpoint holds of it, beside weights and moments.

        Args:
            model: not wrapped for several processes.
        """
        return {
            # Upstream's counts one on after the last step.
            "iteration": self.finished_iter,
            "seed": self._stream.seed,
            "images": self._images,
            "images_drawn": self.images_drawn,
            "processes": comm.get_world_size(),
            "settings": self._settings,
            "precision": self._precision,
            "trained": optim.parameter_names(optimizer, model),
            "memory": {name: part.memory() for name, part in with_memory(model).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Inverse of `state_dict`, and of earlier versions'; compare them first."""
        self.finished_iter = state["iteration"]
        if state.get("settings", {}).get("SEED") == self._settings["SEED"]:
            self._stream.seed = state["seed"]
        done = (state["iteration"] + 1) * self.cfg.SOLVER.IMS_PER_BATCH
        self.images_drawn = self._stream.position = state.get("images_drawn", done)
        for name, part in with_memory(model).items():
            if name in state.get("memory", {}):
                part.restore_memory(state["memory"][name])

    def compare(self, state: Mapping[str, Any]) -> None:
        """Refuse or say where this run cannot be the one that the checkpoint is of.

        Raises:
            ZssError: other settings, or other images, without `allow_changes`.
        """
        where = f"the checkpoint in {self.cfg.OUTPUT_DIR}"
        if "settings" not in state:
            logger.warning("%s is of an earlier version: it does not go on exactly", where)
            return
        changes = check_settings(self.cfg, state, where, self.allow_changes)
        log_changes(without_precision(changes))
        before = precision_of(state)
        if before != self._precision:
            logger.warning(
                "From here on, networks compute in %s, before they did in %s",
                *(self._precision, before),
            )
        if state["images"] != self._images and not self.allow_changes:
            raise ZssError(
                f"{where} was trained on other images than DATASETS.TRAIN has now; restore them, "
                "or give another OUTPUT_DIR or --allow-changes"
            )
        if state["processes"] != comm.get_world_size():
            logger.warning(
                "The run had %d processes and has %d now: it goes on with the same images, but no "
                "longer bit for bit",
                state["processes"],
                comm.get_world_size(),
            )


def with_memory(model: nn.Module) -> dict[str, nn.Module]:
    """Parts that remember, beside weights and buffers, what the next step depends on, by name.

    They have methods ``memory() -> dict`` of tensors and plain values and ``restore_memory(dict)``;
    the memory is the same on all processes.
    """
    return {name: m for name, m in model.named_modules() if hasattr(m, "restore_memory")}
