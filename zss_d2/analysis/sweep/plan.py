"""The runs of a sweep: which there are, and that no two of them are one."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from zss_d2.analysis.sweep.settings import settings_hash
from zss_d2.data.spec.custom import Custom, load_custom
from zss_d2.engine import load_config
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class Run:
    """One training (or evaluation), and its folder ``place`` below the output folder.

    ``varied`` is the key whose value makes the variant, "" if there is none.
    """

    config_file: str
    variant: str
    seed: int
    overrides: tuple[str, ...]
    output: Path
    place: str
    view: Custom | None = None
    varied: str = ""

    @property
    def method(self) -> str:
        return Path(self.config_file).stem

    @property
    def folder(self) -> Path:
        return self.output / self.place

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, self.variant, f"seed {self.seed}")))

    def config(self) -> CfgNode:
        return self._config

    @functools.cached_property
    def _config(self) -> CfgNode:
        opts = [*self.overrides, "SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)]
        return load_config(self.config_file, opts)

    @functools.cached_property
    def settings(self) -> str:
        """Hash of all that is not its seed or folder."""
        return settings_hash(self.config(), without=["SEED"])

    @functools.cached_property
    def common(self) -> str:
        """Hash of what it shares with the runs of other seeds, views and values of the varied key.

        Data sets go by their names, not by the places of their descriptions.
        """
        cfg = self.config()
        names = {key: [*map(self.base_of, cfg.DATASETS[key])] for key in ("TRAIN", "TEST")}
        without = ["SEED", "DATASETS.CUSTOM", self.varied]
        return settings_hash(cfg, without=without, **names)

    def base_of(self, dataset: str) -> str:
        """The data set that a view shows; of another one itself."""
        if self.view is None:
            return dataset
        split = dataset.removeprefix(f"zss_{self.view.benchmark.name}_")
        return f"zss_{self.view.base}_{split}"

    def data(self, dataset: str) -> str:
        """What the table calls a test set: one name for all views, to average over them."""
        return dataset if self.view is None else f"views of {self.base_of(dataset)}"


def plan_runs(args: argparse.Namespace) -> list[Run]:
    """Every config on every view with every variant and seed, in that order.

    Raises ZssError for a bad view, one of other data than a config's, a key that would have no
    effect, and for two runs that are one.
    """
    key, *values = args.vary or ("", None)
    _check_keys(key, args.opts)
    runs = []
    for config_file, path, value in itertools.product(args.configs, args.views or [""], values):
        view = load_custom(path) if path else None
        name = view.benchmark.name if view else ""
        overrides = [*args.opts, *(() if value is None else (key, value))]
        if view is not None:
            overrides += view_overrides(config_file, overrides, path, view)
        variant = " ".join(filter(None, ('""' if value == "" else value, name)))
        place = "/".join(filter(None, (Path(config_file).stem, name, _folder_name(value))))
        runs += [
            Run(
                config_file=config_file,
                variant=variant,
                seed=seed,
                overrides=tuple(overrides),
                output=args.output,
                place=f"{place}/seed{seed}",
                view=view,
                varied=key,
            )
            for seed in args.seeds
        ]
    _check_folders(runs)
    _check_settings(runs)
    _check_views(runs)
    return runs


def view_overrides(config_file: str, opts: Sequence[str], path: str, view: Custom) -> list[str]:
    """Return what makes the config train and test on the view instead; raises ZssError."""
    datasets = load_config(config_file, opts).DATASETS
    overrides = ["DATASETS.CUSTOM", repr((*datasets.CUSTOM, path))]
    for key in ("TRAIN", "TEST"):
        overrides += [f"DATASETS.{key}", repr(tuple(map(view.dataset_shown, datasets[key])))]
    return overrides


def _folder_name(value: str | None) -> str:
    """The folder of a varied value; also of one that names none, such as ".."."""
    name = (value or "").replace("/", "_")
    return name if value is None or name.strip(".") else f"_{name}"


def _check_keys(varied: str, opts: Sequence[str]) -> None:
    for source, keys in (("--vary", [varied]), ("--opts", opts[::2])):
        for key, option in (("SEED", "--seeds"), ("OUTPUT_DIR", "--output")):
            if key in keys:
                raise ZssError(f"{source} {key} would have no effect; use {option}")
    if varied in opts[::2]:
        raise ZssError(f"--opts {varied} would have no effect beside --vary {varied}; give one")


def _check_folders(runs: Sequence[Run]) -> None:
    folders: dict[str, Run] = {}
    for run in runs:
        if (other := folders.setdefault(run.place, run)) is not run:
            configs = " and ".join(dict.fromkeys((other.config_file, run.config_file)))
            raise ZssError(
                f"{run.folder} would be the folder of two runs, {other} and {run} of {configs}; "
                "give every config, view, value and seed once, and other names to those alike"
            )


def _check_settings(runs: Sequence[Run]) -> None:
    """Runs of one method with the same settings and seed are not two."""
    known: dict[tuple[str, int, str], Run] = {}
    for run in runs:
        if (other := known.setdefault((run.method, run.seed, run.settings), run)) is not run:
            raise ZssError(f"{other} and {run} have the same settings; leave one of them out")


def _check_views(runs: Sequence[Run]) -> None:
    known: dict[tuple[str, frozenset[str]], str] = {}
    for view in (run.view for run in runs if run.view is not None):
        name = view.benchmark.name
        other = known.setdefault((view.base, frozenset(view.benchmark.unseen_names)), name)
        if other != name:
            raise ZssError(
                f"the views {other} and {name} hold out the same classes; leave one of them out"
            )
