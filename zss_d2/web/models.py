"""The models that the page offers."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zss_d2.analysis.names import check_different, config_names, short_names
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.config.model_folder import ModelFolder
from zss_d2.engine.last_checkpoint import find_last_checkpoint
from zss_d2.errors import ZssError
from zss_d2.utils.installation import config_folder

if TYPE_CHECKING:
    from zss_d2.predict.predictor import Predictor

# Needs no weights but CLIP's, which come with the project.
TRAINING_FREE = config_folder() / "maskclip_mini.yaml"
# How far below the folder of outputs runs are looked for: output/sweep/method/seed0.
_DEPTH = 4
# Models that stay loaded.
_KEPT = 2


@dataclass(frozen=True)
class Choice:
    """A model by the arguments of `zss_d2.load_model`.

    Args:
        name: what the page calls it.
        config: config file, or the folder of a run.
        weights: checkpoint; None: as `zss_d2.load_model` has it.
    """

    name: str
    config: Path
    weights: str | None = None


def given_choices(
    config_file: Path | None, weights: str | None, runs: Sequence[Path]
) -> list[Choice]:
    """The models that a command line names; raises ZssError where it contradicts itself."""
    if weights is not None and config_file is None:
        raise ZssError("--weights belongs to a --config-file; give that too")
    check_different(runs)
    choices = [Choice(*pair) for pair in zip(_run_names(runs), runs, strict=True)]
    if config_file is not None:
        choices.insert(0, Choice(config_names([config_file])[0], config_file, weights))
    return choices


def choices_at_hand(folder: Path) -> list[Choice]:
    """Runs with a checkpoint and model folders, newest first, and the model without training.

    Both lie below a folder, the one of outputs.

    What looks like a run but is none is told on stderr.
    """
    runs: list[tuple[float, Path]] = []
    for path in _folders(folder):
        try:
            weights = _weights_in(path)
            if weights is not None:
                runs.append((weights.stat().st_mtime, path))
        except (ZssError, OSError) as error:
            print(f"note: {path} is left out: {error}", file=sys.stderr)
    paths = [path for _, path in sorted(runs, reverse=True)]
    choices = [Choice(*pair) for pair in zip(_run_names(paths), paths, strict=True)]
    if TRAINING_FREE.is_file():
        choices.append(Choice(config_names([TRAINING_FREE])[0], TRAINING_FREE))
    if not choices:
        raise ZssError(
            f"there is no run with a checkpoint and no model folder below {folder} here, and no "
            f"{TRAINING_FREE}; give the folder of a run, or --config-file"
        )
    return choices


class Models:
    """Models that are loaded when they are first asked for, and used by one thread at a time.

    Args:
        choices: one or more, of different names.
        load: of the weights and config of a choice.
    """

    def __init__(self, choices: Sequence[Choice], load: Callable[[Choice], Predictor]):
        self._choices = {choice.name: choice for choice in choices}
        self._load = load
        self._loaded: OrderedDict[str, Predictor] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What the page offers, the default first."""
        return [*self._choices]

    @contextmanager
    def use(self, name: str) -> Iterator[Predictor]:
        """A model, for this thread alone.

        Raises:
            ZssError: there is none of that name, or it cannot be loaded.
        """
        if name not in self._choices:
            raise ZssError(
                f"{name!r} is no model of this page; choose one of {', '.join(self.names)}"
            )
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self._choices[name])
            self._loaded.move_to_end(name)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            yield self._loaded[name]

    def load_all(self) -> None:
        """Load every model once, the default last; raises ZssError where one cannot be loaded."""
        for name in reversed(self.names):
            with self.use(name):
                pass

    def drop_unloadable(self) -> None:
        """Load the default; those that cannot be loaded are told on stderr, and left out.

        Raises:
            ZssError: of the last one, if none can be loaded.
        """
        while True:
            name = self.names[0]
            try:
                with self.use(name):
                    return
            except ZssError as error:
                if len(self._choices) == 1:
                    raise
                print(f"note: {name} is left out: {error}", file=sys.stderr)
                del self._choices[name]


def _weights_in(folder: Path) -> Path | None:
    """Weights of a model folder, or last checkpoint of a run; None: it is neither."""
    if ModelFolder.at(folder) is not None:
        return ModelFolder(folder).weights
    return find_last_checkpoint(folder) if RunFolder(folder).is_run else None


def _run_names(paths: Sequence[Path]) -> list[str]:
    return short_names(paths) if paths else []


def _folders(folder: Path) -> Iterator[Path]:
    """Folders with a config.yaml below a folder; what is below one of them is its own."""
    for path, folders, files in os.walk(folder):
        deep = len(Path(path).relative_to(folder).parts) >= _DEPTH
        if "config.yaml" in files:
            yield Path(path)
        if deep or "config.yaml" in files:
            folders.clear()
