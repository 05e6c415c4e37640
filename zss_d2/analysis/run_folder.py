"""What a run has left in its folder: the one place that knows its files."""

from __future__ import annotations

import functools
import json
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from zss_d2.analysis.device import config_for_this_machine
from zss_d2.analysis.names import check_different, short_names
from zss_d2.config.values import value_of
from zss_d2.config.yaml_file import read_yaml
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer
from zss_d2.engine.config_file import FILE_KEYS
from zss_d2.engine.last_checkpoint import find_last_checkpoint
from zss_d2.errors import ZssError
from zss_d2.evaluation.counts import StoredCounts, counts_file, read_counts
from zss_d2.evaluation.predictions import prediction_file
from zss_d2.evaluation.results import PROVENANCE, read_results

# Every config.yaml of a run has these; in one that lacks some, defaults would stand in for them.
NODES = ("DATASETS", "INPUT", "MODEL", "SOLVER", "TEST", "ZERO_SHOT")


@dataclass(frozen=True)
class RunFolder:
    """``OUTPUT_DIR`` of a run. Files are read when they are asked for, and then kept.

    Args:
        path: of the folder.
        name: what pages and figures call the run.
    """

    path: Path
    name: str = ""

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Content of config.yaml; empty where there is none.

        Raises:
            ZssError: it is no yaml, or not that of a run.
        """
        if not self.config_file.is_file():
            return {}
        _, content = read_yaml(self.config_file, "the config of a run")
        if not isinstance(content, dict):
            raise ZssError(
                f"{self.config_file} is not the config of a run, it holds "
                f"{reprlib.repr(content)}; put back the one that the run was started with"
            )
        return content

    @property
    def is_run(self) -> bool:
        """Whether config.yaml is there and the whole one of a run; raises as `settings` does."""
        return all(isinstance(self.settings.get(node), dict) for node in NODES)

    @property
    def has_results(self) -> bool:
        return (self.path / "results.json").is_file()

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """Content of results.json: metrics of every test set, and provenance.

        Raises:
            ZssError: there is none, or none that a run has written.
        """
        return read_results(self.path / "results.json")

    @property
    def provenance(self) -> dict[str, Any]:
        """How the results came about; raises ZssError as `results` does."""
        return self.results[PROVENANCE]

    @functools.cached_property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Test set -> metric -> percent; raises ZssError as `results` does."""
        return {name: x for name, x in self.results.items() if name != PROVENANCE}

    @functools.cached_property
    def history(self) -> list[dict[str, float]]:
        """Lines of metrics.json; empty where nothing was trained.

        Raises:
            ZssError: the file is damaged.
        """
        return _read_history(self.path / "metrics.json")

    @property
    def incomplete(self) -> str:
        """That the results are of a training before its end, in words; "" if they are not.

        An evaluation in the midst of a training writes them too, and it may have stopped then. Of
        weights that were trained elsewhere the config does not know how long. Raises ZssError as
        `results` and `history` do.
        """
        done, planned = self.provenance["iteration"], value_of(self.settings, "SOLVER.MAX_ITER")
        if done is None or not isinstance(planned, int) or done >= planned or not self.history:
            return ""
        return f"results of iteration {done}, of a training of {planned}"

    def counts(self, dataset: str) -> StoredCounts:
        """Pixel counts of a test set; raises ZssError where there are none."""
        return read_counts(counts_file(self.path, dataset))

    def prediction_file(self, dataset: str, key: str) -> Path:
        """Where the predicted labels of an image are, if they were stored."""
        return prediction_file(self.path, dataset, key)

    def custom_descriptions(self) -> list[Path]:
        """The files of ``DATASETS.CUSTOM`` that the run used, as `find` finds them.

        Raises:
            ZssError: config.yaml cannot be read.
        """
        named = value_of(self.settings, "DATASETS.CUSTOM")
        return [self.find(Path(str(name))) for name in named or ()]

    def find(self, path: Path) -> Path:
        """Where a file lies that the run named by a relative path; one that is nowhere stays.

        The path started where the training did: above the run's folder, as a rule, or else here. In
        a folder that a model is shared in, files lie beside the config.
        """
        starts = (self.path, *self.path.resolve().parents, Path())
        return next((start / path for start in starts if (start / path).is_file()), path)

    def config(self, opts: Sequence[str] = ()) -> CfgNode:
        """The whole config for this machine, files found as `find` does.

        Args:
            opts: config keys and values, in turn.

        Raises:
            ZssError: the folder is no run, or a file that it needs is gone.
        """
        if not self.config_file.is_file():
            raise ZssError(f"{self.path} is no folder of a run: config.yaml is missing")
        if missing := [x for x in NODES if not isinstance(self.settings.get(x), dict)]:
            raise ZssError(
                f"{self.config_file} is no whole config of a run: {missing[0]} is missing; put "
                "back the config that the run was started with"
            )
        overrides = self._files_found(given=opts[::2])
        # Compiling for a few images takes longer than they do.
        return config_for_this_machine(self.config_file, [*overrides, "MODEL.COMPILE", "", *opts])

    def _files_found(self, given: Sequence[str]) -> list[str]:
        """Overrides that say where the files of the config are, but for the keys ``given``."""
        overrides: list[str] = []
        if "DATASETS.CUSTOM" not in given and (descriptions := self.custom_descriptions()):
            for path in descriptions:
                if not path.is_file():
                    raise ZssError(
                        f"{self.path}: the data set description {path} of DATASETS.CUSTOM is "
                        "neither above the run's folder nor here; say where it is with "
                        "--opts DATASETS.CUSTOM \"('PATH',)\""
                    )
            overrides += ["DATASETS.CUSTOM", repr(tuple(map(str, descriptions)))]
        for key in FILE_KEYS:
            named = value_of(self.settings, key)
            if named and isinstance(named, str) and key not in given:
                found = str(self.find(Path(named)))
                overrides += [key, found] if found != str(Path(named)) else []
        return overrides

    def checkpoint(self, cfg: CfgNode) -> str:
        """The last checkpoint or, where there is none, ``MODEL.WEIGHTS`` of a config; "": neither.

        Raises:
            ZssError: ``last_checkpoint`` names no file of the folder.
        """
        return str(find_last_checkpoint(self.path) or cfg.MODEL.WEIGHTS)

    def model(self, cfg: CfgNode) -> nn.Module:
        """The model of a config, with the weights of the last checkpoint, in evaluation mode.

        Args:
            cfg: of `config`.

        Raises:
            ZssError: the checkpoint is damaged or of another model.
        """
        model = ZeroShotTrainer.build_model(cfg).eval()
        checkpoint = self.checkpoint(cfg)
        if not checkpoint and any(parameter.requires_grad for parameter in model.parameters()):
            print(
                f"note: {self.path} holds no checkpoint and MODEL.WEIGHTS is empty: a model "
                "without trained weights",
                file=sys.stderr,
            )
        ZeroShotCheckpointer(model, str(self.path)).load(checkpoint)
        model.require_setting()
        return model


def finished_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Runs with results, called by what tells their folders apart.

    Those whose training is not at its end are named on the error output.

    Raises:
        ZssError: a folder has no results.json, has one, or a metrics.json, that no run has written,
            or is given twice.
    """
    check_different(folders)
    runs = list(map(RunFolder, folders, short_names(folders)))
    for run in runs:
        # What is damaged is found before work starts.
        _ = run.results, run.history
        if run.incomplete:
            print(f"note: {run.path}: {run.incomplete}", file=sys.stderr)
    return runs


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ZssError(
            f"{path} is no text ({error.reason}); move it elsewhere, the report then has no "
            "training curves"
        ) from None
    return [_metrics_line(path, *pair) for pair in enumerate(lines, start=1) if pair[1].strip()]


def _metrics_line(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if (
        not isinstance(content, Mapping)
        or not isinstance(content.get("iteration"), int)
        or not all(isinstance(value, (int, float)) for value in content.values())
    ):
        raise ZssError(
            f"{path} is damaged: line {number} is {reprlib.repr(line)}, not iteration and metrics "
            "of a training (a run that is killed can leave half a line); take that line out"
        )
    return content
