"""The evaluator interface and the loop that drives it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from time import perf_counter
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

_logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Collects what a model says about a data set and sums it up."""

    def reset(self) -> None:
        """Forget everything; called before a new pass."""

    def process(self, inputs: Sequence[dict], outputs: Sequence[Any]) -> None:
        """Take in a batch: the model's inputs and what it returned for them."""

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """{task: {metric: value}}; None where another process has the result."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one; their results must not share a task."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[dict], outputs: Sequence[Any]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Union of all results; empty off rank 0."""
        merged: dict[str, dict[str, float]] = {}
        for evaluator in self._evaluators:
            results = evaluator.evaluate()
            if comm.is_main_process() and results is not None:
                twice = merged.keys() & results.keys()
                assert not twice, f"several evaluators report {sorted(twice)}"
                merged |= results
        return merged


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; its former mode comes back at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def inference_on_dataset(
    model: nn.Module | Callable[[Any], Any],
    data_loader: Any,
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
) -> dict[str, Any]:
    """Run the model over a loader that has a length, in eval mode, and evaluate.

    Logs progress, time left and seconds per batch; the first batches, as warm-up, do not count.

    Args:
        evaluator: None only measures time.

    Returns:
        The evaluator's results; {} where it returns None.
    """
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    mode = inference_context(model) if isinstance(model, nn.Module) else nullcontext()
    total = len(data_loader)
    warmup = min(5, total - 1)
    _logger.info("Start inference on %d batches", total)
    seconds = dict.fromkeys(("data", "model", "evaluation"), 0.0)
    with mode, torch.no_grad():
        mark = perf_counter()
        for index, inputs in enumerate(data_loader):
            if index == warmup:
                seconds = dict.fromkeys(seconds, 0.0)
            marks = [mark, perf_counter()]
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(perf_counter())
            evaluator.process(inputs, outputs)
            marks.append(mark := perf_counter())
            for part, start, end in zip(seconds, marks, marks[1:], strict=False):
                seconds[part] += end - start
            counted = index + 1 - (warmup if index >= warmup else 0)
            if index >= 2 * warmup or seconds["model"] > 5 * counted:
                left = timedelta(seconds=int(sum(seconds.values()) / counted * (total - index - 1)))
                parts = ", ".join(
                    f"{part} {spent / counted:.4f}" for part, spent in seconds.items()
                )
                text = f"Inference done {index + 1}/{total}; s / batch: {parts}; ETA={left}"
                log_every_n_seconds(logging.INFO, text, n=5)
    spent, counted = sum(seconds.values()), max(total - warmup, 1)
    _logger.info(
        "Total inference time: %s (%.6f s / iter per device, on %d devices), in the model: %s",
        *(timedelta(seconds=spent), spent / counted, comm.get_world_size()),
        timedelta(seconds=seconds["model"]),
    )
    return evaluator.evaluate() or {}
