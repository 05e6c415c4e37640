"""Several runs on the same images: what pictures that show them beside each other need."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata
from torch import nn

from zss_d2.analysis.names import check_different
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.files.encoding import read_labels
from zss_d2.errors import ZssError


def load_models(
    folders: Sequence[Path], opts: Sequence[str] = ()
) -> tuple[list[tuple[CfgNode, nn.Module]], str]:
    """Config and model of every run, and the (first) data set that all of them were tested on.

    Args:
        folders: ``OUTPUT_DIR`` of every run.
        opts: config keys and values, in turn.

    Raises:
        ZssError: a folder is no run or given twice, or they were tested on different data sets.
    """
    configs, dataset = load_configs(folders, opts)
    runs = [RunFolder(folder) for folder in folders]
    models = [run.model(cfg) for run, cfg in zip(runs, configs, strict=True)]
    return list(zip(configs, models, strict=True)), dataset


def load_configs(folders: Sequence[Path], opts: Sequence[str] = ()) -> tuple[list[CfgNode], str]:
    """`load_models` without the models."""
    check_different(folders)
    runs = [RunFolder(folder) for folder in folders]
    configs, names, files = [], [], []
    for run in runs:
        configs.append(run.config(opts))
        names.append(tested_set(run, configs[-1]))
        if len(set(names)) > 1:
            different = ", ".join(sorted(set(names)))
            raise ZssError(f"the runs were tested on different data sets: {different}")
        # Custom datasets may share a name, which then stands for those of the last run.
        files.append([record["file_name"] for record in records_of(names[0])])
        if files[-1] != files[0]:
            raise ZssError(
                f"{names[0]} of {run.path} and that of {folders[0]} are different data sets of one "
                "name; show the runs in pictures of their own"
            )
    return configs, names[0]


def tested_set(run: RunFolder, cfg: CfgNode) -> str:
    """The first of ``DATASETS.TEST``; raises ZssError if there is none."""
    if not cfg.DATASETS.TEST:
        raise ZssError(
            f"{run.path}: DATASETS.TEST of the run is empty; name a data set with "
            "--opts DATASETS.TEST \"('NAME',)\""
        )
    return cfg.DATASETS.TEST[0]


def records_of(dataset: str) -> list[dict]:
    """Images and masks of a registered data set; raises ZssError where there is none."""
    if dataset not in DatasetCatalog.list():
        raise ZssError(f"{dataset} is not registered; name one such as zss_mini_dev")
    return DatasetCatalog.get(dataset)


def choose(records: Sequence[dict], number: int, metadata: Metadata) -> list[dict]:
    """The first records that show an unseen class, then others, ``number`` in all.

    Args:
        metadata: of the data set of the records.
    """
    unseen = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
    with_unseen = (
        record
        for record in records
        if np.isin(read_labels(record["sem_seg_file_name"], metadata), unseen).any()
    )
    chosen = list(islice(with_unseen, number))
    others = (record for record in records if record not in chosen)
    return chosen + list(islice(others, number - len(chosen)))
