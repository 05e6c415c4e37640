"""Earlier weights of a model, which pseudo labels are made with: frozen, or a moving average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

View = tuple[float, bool]
"""A scale, and whether the image is mirrored."""


class Student(Protocol):
    """The model itself, as an `nn.Module` that also has these."""

    size_divisibility: int
    training: bool

    def class_logits(self, images: Tensor, class_names: Sequence[str]) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K, h, w) of the named classes."""

    def train(self, mode: bool = True) -> nn.Module:
        """As of any module."""


class TeacherWeights(nn.Module):
    """A second set of the weights that learn, and of the statistics of norms.

    All else, such as frozen towers, is the student's. They are no part of its weights, but of the
    state of a run; four bytes for every weight that learns, there and in checkpoints. They are the
    same on all processes: statistics, which may not be, are those of the first one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[str, Tensor] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TeacherWeights:
        self._weights = {name: fn(weight) for name, weight in self._weights.items()}
        return super()._apply(fn, recurse)

    @property
    def empty(self) -> bool:
        """Whether there were no weights to copy yet."""
        return not self._weights

    @torch.no_grad()
    def copy(self, student: nn.Module) -> None:
        """Take the student's weights as they are now."""
        self._weights = {name: weight.detach().clone() for name, weight in _learnt(student)}
        statistics = {name: x.detach().clone() for name, x in _statistics(student)}
        self._weights |= _of_the_first(statistics)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """momentum * own + (1 - momentum) * the student's; statistics of norms are the student's.

        Raises:
            KeyError: nothing was copied yet.
        """
        for name, weight in _learnt(student):
            self._weights[name].lerp_(weight, 1 - momentum)
        for name, value in _of_the_first(dict(_statistics(student))).items():
            self._weights[name].copy_(value)

    @contextmanager
    def in_place_of(self, student: nn.Module) -> Iterator[Callable[..., Tensor]]:
        """The student's ``class_logits`` with these weights."""
        model = _Logits(student)
        weights = {f"student.{name}": weight for name, weight in self._weights.items()}
        yield lambda *args: functional_call(model, weights, args)

    def state(self) -> dict[str, Tensor]:
        """The weights, by the student's names."""
        return self._weights

    def load(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Inverse of `state`."""
        self._weights = {name: weight.to(device, copy=True) for name, weight in state.items()}


class _Logits(nn.Module):
    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def forward(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self.student.class_logits(images, names)


def _learnt(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Running means and variances of batch norms."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for kind in ("running_mean", "running_var"):
                yield f"{name}.{kind}", getattr(module, kind)


def _of_the_first(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first process's, on every one of them."""
    if comm.get_world_size() == 1 or not tensors:
        return tensors
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    torch.distributed.broadcast(flat, src=0)
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view_as(tensors[name]) for name, part in zip(tensors, parts, strict=True)}


@torch.no_grad()
def logits_of_views(
    student: Student,
    teacher: TeacherWeights | None,
    images: Tensor,
    names: Sequence[str],
    views: Sequence[View],
) -> list[Tensor]:
    """Logits (B, K, h, w) of the images (B, 3, H, W) in several views, as in tests (no dropout).

    Each covers the whole of the images, mirrored ones turned back.

    Args:
        teacher: whose weights; None: the student's own.
        names: K of them.
    """
    if not views:
        return []
    training = student.training
    student.train(False)
    try:
        if teacher is None:
            return [_view(student.class_logits, student, images, names, view) for view in views]
        with teacher.in_place_of(student) as logits:
            return [_view(logits, student, images, names, view) for view in views]
    finally:
        student.train(training)


def _view(
    logits: Callable[..., Tensor],
    student: Student,
    images: Tensor,
    names: Sequence[str],
    view: View,
) -> Tensor:
    scale, mirrored = view
    if scale != 1:
        step = student.size_divisibility
        size = [max(step, round(side * scale / step) * step) for side in images.shape[2:]]
        images = F.interpolate(images, size, mode="bilinear", antialias=scale < 1)
    return logits(images.flip(-1), names).flip(-1) if mirrored else logits(images, names)
