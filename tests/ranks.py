"""train_net.py, whose processes also write what each has learnt, to OUTPUT_DIR/rank<N>.pth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

import zss_d2.engine
from zss_d2 import train
from zss_d2.engine import ZeroShotTrainer, argument_parser, parse_arguments, run


class Witness(HookBase):
    """The state at the start, the batch and gradients of the first step, the parameters at the end.

    Gradients are those that the optimizer gets.
    """

    def before_train(self) -> None:
        # The trainer is a weak reference that does not outlive the training.
        self.model = getattr(self.trainer.model, "module", self.trainer.model)
        start = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.seen: dict[str, Any] = {"start": start, "batches": [], "gradients": {}}
        self.model.register_forward_pre_hook(self._see)
        self.trainer.optimizer.register_step_pre_hook(self._note)

    def _see(self, model: torch.nn.Module, args: tuple) -> None:
        if model.training:
            kept = ("image", "sem_seg", "pseudo_labels")
            batch = [{key: item[key] for key in kept if key in item} for item in args[0]]
            self.seen["batches"].append(batch)

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not self.seen["gradients"]:
            self.seen["gradients"] = {
                name: p.grad.clone()
                for name, p in self.model.named_parameters()
                if p.grad is not None
            }

    def after_train(self) -> None:
        self.seen["end"] = {name: p.detach() for name, p in self.model.named_parameters()}
        folder = Path(self.trainer.cfg.OUTPUT_DIR)
        torch.save(self.seen, folder / f"rank{comm.get_rank()}.pth")


class WatchedTrainer(ZeroShotTrainer):
    def build_hooks(self) -> list[HookBase]:
        return [*super().build_hooks(), Witness()]


def main(cfg: CfgNode, args: argparse.Namespace) -> object:
    zss_d2.engine.ZeroShotTrainer = WatchedTrainer
    return train.work(cfg, args)


if __name__ == "__main__":
    run(main, parse_arguments(argument_parser()))
