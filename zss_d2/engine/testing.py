"""Evaluations: ended by a signal between two batches, recorded with what they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from zss_d2.engine.last_checkpoint import FINAL
from zss_d2.engine.processes import interrupt
from zss_d2.evaluation import write_results
from zss_d2.evaluation.examples import Examples
from zss_d2.evaluation.results import collect_provenance


@contextmanager
def stopping_between_images(model: nn.Module) -> Iterator[None]:
    """A signal that has come ends an evaluation before the next batch of images."""
    hook = model.register_forward_pre_hook(lambda *_: interrupt.stop_if_requested())
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def showing_examples(cfg: CfgNode, model: nn.Module) -> Iterator[None]:
    """In training, an evaluation leaves pictures of `TEST.SHOW_IMAGES` images for TensorBoard.

    Their predictions are those that are evaluated; nothing is computed twice.
    """
    number = cfg.TEST.SHOW_IMAGES if has_event_storage() else 0
    examples = [Examples(name, number) for name in cfg.DATASETS.TEST if number]
    with ExitStack() as hooks:
        for example in examples:
            hooks.callback(example.watch(model).remove)
        yield
    for example in examples:
        for name, picture in example.pictures():
            get_event_storage().put_image(f"examples/{name}", picture.transpose(2, 0, 1))


def record_results(
    cfg: CfgNode,
    results: Mapping[str, Any],
    checkpoint: str,
    iteration: int | None,
    doubts: Sequence[str] = (),
) -> None:
    """Write ``OUTPUT_DIR/results.json``, on rank 0.

    Args:
        results: as `DefaultTrainer.test` gives them: by data set, if there are several.
        checkpoint, iteration: file that the weights come from and how long they were trained; in
            training, that is what the run is at.
        doubts: `Identified.doubts` of the model.
    """
    names = cfg.DATASETS.TEST
    if not names or not comm.is_main_process():
        return
    by_name = dict(results) if len(names) > 1 else {names[0]: results}
    if has_event_storage():
        # The storage counts from 0 within the loop and is one further after it.
        iteration = min(get_event_storage().iter + 1, cfg.SOLVER.MAX_ITER)
        checkpoint = _saved_checkpoint(cfg, iteration)
    write_results(
        Path(cfg.OUTPUT_DIR) / "results.json",
        {name: result["sem_seg"] for name, result in by_name.items()},
        collect_provenance(cfg, checkpoint, iteration, doubts),
    )


def _saved_checkpoint(cfg: CfgNode, iteration: int) -> str:
    """File that the checkpoint hook, which runs before evaluation, has written at ``iteration``.

    "" if there is none, or none any more: a run that goes on may find it removed.
    """
    if iteration >= cfg.SOLVER.MAX_ITER:
        path = Path(cfg.OUTPUT_DIR) / FINAL
    elif iteration % cfg.SOLVER.CHECKPOINT_PERIOD == 0:
        path = Path(cfg.OUTPUT_DIR) / f"model_{iteration - 1:07d}.pth"
    else:
        return ""
    return str(path) if path.is_file() else ""
