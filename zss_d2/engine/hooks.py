"""What happens between the iterations: checkpoints, a stop on a signal, metrics without a gap."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.engine.last_checkpoint import BEST, FINAL, numbered_checkpoints
from zss_d2.engine.processes import interrupt
from zss_d2.engine.resume import read_metrics, rewind_metrics

try:
    import resource
except ImportError:  # Windows
    resource = None

logger = logging.getLogger(__name__)

# Iterations over which metrics are smoothed, by Detectron2.
WINDOW = 20
# Starts of the names of metrics that are of one line each, and not smoothed.
OF_A_LINE = "pseudo_"
# Ends of the names of metrics that say what a run costs.
_COSTS = ("time", "eta_seconds", "max_mem")


class Checkpoints(HookBase):
    """Saves every ``period`` iterations, after ``minutes`` without a checkpoint, and at the end.

    Args:
        keep: number of ``model_<iteration>.pth`` that stay, the newest; 0: all.
    """

    def __init__(self, checkpointer: ZeroShotCheckpointer, period: int, minutes: float, keep: int):
        self.checkpointer = checkpointer
        self.period = period
        self.minutes = minutes or math.inf
        self.keep = keep
        self._saved_iteration = -1

    def before_train(self) -> None:
        self._saved_at = time.monotonic()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        overdue = time.monotonic() - self._saved_at >= 60 * self.minutes
        if done % self.period == 0 or overdue:
            self.save()
        if done == self.trainer.max_iter:
            self.checkpointer.save(Path(FINAL).stem, iteration=self.trainer.iter)
            self._saved_iteration = self.trainer.iter

    def save(self) -> None:
        """Save now, unless this iteration is saved already, and remove what is not to be kept."""
        iteration = self.trainer.iter
        if self._saved_iteration == iteration:
            return
        self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        self._saved_iteration, self._saved_at = iteration, time.monotonic()
        numbered = numbered_checkpoints(Path(self.checkpointer.save_dir))
        for old in sorted(numbered)[: -self.keep] if self.keep else ():
            numbered[old].unlink(missing_ok=True)


class StopOnSignal(HookBase):
    """Ends the training after an iteration in which any process has got a signal.

    All processes leave at the same iteration, after rank 0 has called ``save``.
    """

    def __init__(self, save: Callable[[], None]):
        self.save = save

    def after_step(self) -> None:
        signals = [signum for signum in comm.all_gather(interrupt.requested()) if signum]
        if signals:
            if comm.is_main_process():
                self.save()
            comm.synchronize()
            raise interrupt.Interrupted(signals[0], saved=True)


class BestCheckpoint(HookBase):
    """Keeps ``model_best.pth``, the checkpoint with the highest value of a metric.

    Runs after evaluation and before its metrics are written: what was best until then is read from
    ``metrics.json``, also after a restart.

    Args:
        measure: value of the metric in the last evaluation.
        name: of the metric in ``metrics.json``.
    """

    def __init__(
        self,
        checkpointer: ZeroShotCheckpointer,
        period: int,
        measure: Callable[[], float],
        name: str,
    ):
        self.checkpointer = checkpointer
        self.period = period
        self.measure = measure
        self.name = name

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.period and done % self.period == 0 and done != self.trainer.max_iter:
            self.update()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self.update()

    def update(self) -> None:
        """Save if the last evaluation was the best one."""
        lines = read_metrics(Path(self.checkpointer.save_dir) / "metrics.json")
        before = [line[self.name] for line in lines if self.name in line]
        value = self.measure()
        if value != value:
            logger.warning("%s has no value here, so this is not the best checkpoint", self.name)
        # Comparisons with NaN are false.
        if value > max((v for v in before if v == v), default=-math.inf):
            logger.info("%s %.4g is the best so far", self.name, value)
            # After the last step, upstream counts one on.
            iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
            self.checkpointer.save(Path(BEST).stem, iteration=iteration)


class Costs(HookBase):
    """Records ``max_mem`` with every line of metrics and, with the last one, times and a summary.

    ``max_mem`` is the most memory that this process has had so far, MiB: of a GPU what torch has
    allocated there, without one its resident set, to which loader workers do not count. Seconds per
    iteration, ``time`` and ``data_time``, are Detectron2's.

    Args:
        period: iterations between lines.
        device: ``MODEL.DEVICE``.
    """

    def __init__(self, period: int, device: str):
        self.period = period
        self.device = device

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self._record()

    def after_train(self) -> None:
        trainer, storage = self.trainer, self.trainer.storage
        if trainer.iter < trainer.max_iter:  # it failed
            return
        memory = f"{peak_memory(self.device) / 2**20:.0f} MiB at most"
        latest = storage.latest()
        # There is a line for it.
        evaluated = any(when == storage.iter for _, when in latest.values())
        if evaluated:
            self._record()
        words = []
        # The first three iterations have no time.
        of_images = "of it for images" if "time" in latest else "per iteration for images"
        for name, what in (("time", "per iteration"), ("data_time", of_images)):
            if name in latest:
                history = storage.history(name)
                words.append(f"{history.median(len(history.values())):.3f} s {what} (median)")
                if evaluated:
                    storage.put_scalar(name, history.median(WINDOW))
        logger.info("Training took %s", ", ".join([*words, memory]))

    def _record(self) -> None:
        self.trainer.storage.put_scalar(
            "max_mem", peak_memory(self.device) / 2**20, smoothing_hint=False
        )


def peak_memory(device: str) -> int:
    """Bytes that this process has had at most, on its GPU or of the machine's memory.

    0 where the system does not tell.

    Args:
        device: ``MODEL.DEVICE``; of "cuda" it is the current one.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return 0
    # KiB, but on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 2**10
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class MetricsWithoutGap(HookBase):
    """Makes the metrics of a resumed run those of a run that was never interrupted.

    Its state is what smoothed metrics are smoothed over. A line that the last iteration before the
    restart should have written, with an evaluation perhaps, and did not get to, is written first.

    Args:
        writers: of rank 0; none elsewhere.
        period: iterations between lines.
        evaluate: called where the evaluation of that iteration is missing, on all processes.
        eval_period: iterations between evaluations; 0: none.
        metrics: file of the lines.
    """

    def __init__(
        self,
        writers: list[EventWriter],
        period: int,
        evaluate: Callable[[], None],
        eval_period: int,
        metrics: Path,
    ):
        self.writers = writers
        self.period = period
        self.evaluate = evaluate
        self.eval_period = eval_period
        self.metrics = metrics
        self._histories: dict[str, list[tuple[float, int]]] = {}

    def state_dict(self) -> dict[str, Any]:
        storage, iteration = self.trainer.storage, self.trainer.iter
        return {
            name: storage.history(name).values()[-1 if name.startswith(OF_A_LINE) else -WINDOW :]
            for name, (_, when) in storage.latest().items()
            # Evaluations, which have a slash, are not smoothed; costs are those of one process.
            if when == iteration and "/" not in name and not name.endswith(_COSTS)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._histories = dict(state)

    def before_train(self) -> None:
        done, last = self.trainer.start_iter, self.trainer.max_iter
        tested = self.eval_period > 0 and done % self.eval_period == 0 and done != last
        due = done > 0 and (done % self.period == 0 or done == last)
        # Rank 0 may be writing the file when the others look.
        missing = comm.all_gather(due and not self._written(done - 1, tested))[0]
        storage = self.trainer.storage
        if done < last or missing:
            self._restore(storage)
        if missing:
            storage.iter = done - 1
            if tested:
                self.evaluate()
            for writer in self.writers:
                writer.write()
            storage.iter = done

    def _written(self, iteration: int, tested: bool) -> bool:
        """Whether the line is there; one without its evaluation is cut off."""
        lines = [line for line in read_metrics(self.metrics) if line["iteration"] == iteration]
        if any("/" in name for line in lines for name in line) or (lines and not tested):
            return True
        if comm.is_main_process():
            rewind_metrics(self.metrics, iteration)
        return False

    def after_train(self) -> None:
        # Upstream counts one too many where there was nothing left to train.
        self.trainer.storage.iter = min(self.trainer.storage.iter, self.trainer.max_iter)

    def _restore(self, storage: EventStorage) -> None:
        for name, history in self._histories.items():
            for value, when in history:
                smoothed = name != "lr" and not name.startswith(OF_A_LINE)
                storage.put_scalar(name, value, smoothing_hint=smoothed, cur_iter=when)
