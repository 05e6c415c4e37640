"""The part of a model that trains on its own labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from zss_d2.modeling.precision import single_precision
from zss_d2.modeling.self_training.pseudo_labels import (
    BINS,
    Guess,
    best_candidate,
    count_scores,
    eligible,
    fill,
    least_bins,
    take,
    tally,
    without_low,
)
from zss_d2.modeling.self_training.settings import SelfTrainingSettings
from zss_d2.modeling.self_training.teacher import Student, TeacherWeights, logits_of_views
from zss_d2.utils.transfer import sent

LOCATION = "unseen_location"
"""Key of a training item under the leaky setting: (H, W) bool, pixels of unseen classes."""
WRITTEN = "pseudo_labels"
"""Key of a training item with offline pseudo labels: (H, W), ids of the data set, or ignore."""
# What is left of the counts of scores, whose quantiles are thresholds, after a step.
_DECAY = 0.99
_PLAIN = (1.0, False)


class Network(Student, Protocol):
    """What self-training asks of a model in training."""

    labelled_classes: Sequence[str]
    train_classes: Sequence[str]
    """Those with labels, then those with names alone."""
    ignore_label: int

    def losses(self, outputs: Any, targets: Tensor) -> dict[str, Tensor]:
        """Outputs of the networks and targets (B, H, W) -> loss scalars."""

    def training_logits(self, outputs: Any) -> Tensor:
        """Outputs of the networks -> logits (B, K, h, w) of `train_classes`."""

    def activate(self, logits: Tensor) -> Tensor:
        """Logits (B, K, H, W) -> scores in 0..1."""

    def padded_masks(self, masks: Sequence[Tensor], value: int | bool) -> Tensor:
        """(H, W) of every image -> (B, H, W) on the device, padded as the images are."""

    def modules(self) -> Iterator[nn.Module]:
        """As of any module."""


class SelfTraining(nn.Module):
    """From `SelfTrainingSettings.start` on, pixels without a label get one of the model's.

    It has no weights. What it remembers is part of the state of a run (`memory`).

    Attributes:
        iteration: that of the step, which the trainer sets before it; without a trainer 0.
    """

    def __init__(self, settings: SelfTrainingSettings, ids: Tensor, num_names: int):
        """
        Args:
            ids: index among the names in the losses of every id that a label map may have, or the
                ignore label.
            num_names: K, of those names.
        """
        super().__init__()
        self.settings = settings
        self.iteration = 0
        self.register_buffer("ids", ids, persistent=False)
        counts = torch.zeros(1 + num_names, dtype=torch.int64)
        self.register_buffer("counts", counts, persistent=False)
        self.teacher = TeacherWeights() if settings.source in ("ema", "frozen") else None
        bins = (num_names, BINS) if settings.quantile else (0, BINS)
        scores = torch.zeros(bins, dtype=torch.float64)
        self.register_buffer("score_counts", scores, persistent=False)

    @property
    def active(self) -> bool:
        """Whether this step has pseudo labels; before, it is one of the inductive setting."""
        return self.iteration >= self.settings.start

    def begin(self, network: nn.Module, iteration: int) -> None:
        """Before a step: its iteration, counted from 0, and the weights of the teacher for it."""
        self.iteration = iteration
        if self.teacher is None or not self.active:
            return
        settings, since = self.settings, iteration - self.settings.start
        fresh = settings.source == "frozen" and settings.rounds and since % settings.rounds == 0
        if since == 0 or self.teacher.empty or fresh:
            self.teacher.copy(network)
        elif settings.source == "ema":
            self.teacher.follow(network, settings.ema_momentum)

    def views(self, network: Network, images: Tensor) -> list[Tensor]:
        """Logits (B, K, h, w) beside those of the step itself; to be made as its networks are.

        Args:
            images: (B, 3, H, W), normalised and padded.
        """
        if self.teacher is not None and self.teacher.empty:
            self.teacher.copy(network)
        wanted = () if self._offline else self.settings.views
        if self._own_view:
            wanted = [view for view in wanted if view != _PLAIN]
        return logits_of_views(network, self.teacher, images, network.train_classes, wanted)

    @property
    def _own_view(self) -> bool:
        """Whether the forward pass of the step is one of the views."""
        return self.teacher is None and not self._offline and _PLAIN in self.settings.views

    @property
    def _offline(self) -> bool:
        return self.settings.source == "offline"

    def losses(
        self,
        network: Network,
        items: Sequence[Mapping[str, Any]],
        outputs: Any,
        views: Sequence[Tensor],
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of a step: weight L(filled) + (1 - weight) L(targets).

        Args:
            items: the images of the step, as `ZeroShotSegmentor` takes them.
            outputs: of the networks for them.
            views: see `views`.
            targets: (B, H, W) of `Network.train_classes`, padded.
        """
        filled = self._filled(network, items, outputs, views, targets)
        weight = self.settings.weight
        if weight == 1:
            return network.losses(outputs, filled)
        with _memory_kept(network):
            without = network.losses(outputs, targets)
        losses = network.losses(outputs, filled)
        return {
            name: weight * losses.get(name, 0) + (1 - weight) * without.get(name, 0)
            for name in without | losses
        }

    @torch.no_grad()
    def _filled(
        self,
        network: Network,
        items: Sequence[Mapping[str, Any]],
        outputs: Any,
        views: Sequence[Tensor],
        targets: Tensor,
    ) -> Tensor:
        located = None
        if self.settings.leaky:
            located = network.padded_masks([item[LOCATION] for item in items], False)
        sizes = [item["sem_seg"].shape for item in items]
        pixels = eligible(targets, sizes, network.ignore_label, located)
        first = len(network.labelled_classes) if self.settings.candidates == "unseen" else 0
        number = len(network.train_classes)
        if self._offline:
            written = [self.ids[sent(item[WRITTEN], self.ids.device)] for item in items]
            labels = network.padded_masks(written, network.ignore_label)
            filled = take(targets, pixels, labels, first)
        else:
            own = [network.training_logits(outputs)] if self._own_view else []
            logits = [view.detach().float() for view in (*own, *views)]
            guess = best_candidate(logits, targets.shape[1:], network.activate, first)
            filled = fill(targets, pixels, self._high(guess, pixels), self.settings.threshold)
        self.counts += _of_all_processes(tally(targets, filled, pixels, number))
        return filled

    @torch.no_grad()
    def label(self, network: Network, images: Tensor, size: Sequence[int]) -> Tensor:
        """Labels of images by the model as it is, without dropout; to look at them.

        Args:
            images: (B, 3, H, W), normalised and padded.
            size: (h, w) of what is no padding.

        Returns:
            (B, h, w) indices among `Network.train_classes`; their number where there is none.
        """
        number = len(network.train_classes)
        views = logits_of_views(network, None, images, network.train_classes, self.settings.views)
        first = len(network.labelled_classes) if self.settings.candidates == "unseen" else 0
        with single_precision(images.device):
            views = [view.float() for view in views]
            guess = best_candidate(views, images.shape[2:], network.activate, first)
        targets = torch.full_like(guess.labels, number)
        pixels = torch.zeros_like(guess.agreed)
        pixels[:, : size[0], : size[1]] = True
        filled = fill(targets, pixels, self._high(guess, pixels), self.settings.threshold)
        return filled[:, : size[0], : size[1]]

    def _high(self, guess: Guess, pixels: Tensor) -> Guess:
        """Without the lowest scores of every class, by those of the last steps."""
        if not self.settings.quantile:
            return guess
        counts = _of_all_processes(count_scores(guess, pixels, len(self.score_counts)))
        self.score_counts.mul_(_DECAY).add_(counts)
        return without_low(guess, least_bins(self.score_counts, self.settings.quantile))

    def taken_counts(self) -> list[int]:
        """Pixels since the last call that might have got a label, and of each name that have.

        Those of all processes, on each of them. Waits for the device.
        """
        counts = self.counts.tolist()
        self.counts.zero_()
        return counts

    def memory(self) -> dict[str, Any]:
        """What the next step and the next line of metrics depend on."""
        teacher = {} if self.teacher is None else self.teacher.state()
        return {"counts": self.counts, "score_counts": self.score_counts, "teacher": teacher}

    def restore_memory(self, memory: Mapping[str, Any]) -> None:
        """Inverse of `memory`."""
        self.counts.copy_(memory["counts"])
        if self.score_counts.shape == memory["score_counts"].shape:
            self.score_counts.copy_(memory["score_counts"])
        if self.teacher is not None:
            self.teacher.load(memory["teacher"], self.counts.device)


def _of_all_processes(counts: Tensor) -> Tensor:
    """Added up, in place."""
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(counts)
    return counts


@contextmanager
def _memory_kept(network: Network) -> Iterator[None]:
    """Losses that are taken twice leave what parts remember of a step as the last one does."""
    parts = [
        part
        for part in network.modules()
        if hasattr(part, "restore_memory") and not isinstance(part, SelfTraining)
    ]
    before = [(part.restore_memory, part.memory()) for part in parts]
    yield
    for restore, memory in before:
        restore(memory)
