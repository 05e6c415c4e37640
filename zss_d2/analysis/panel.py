"""A picture of what models see: photo, ground truth and one column per trained run.

    zss panel output/sweep/maskclip_mini/seed0 output/sweep/ldvc_mini/seed0 \\
        --images 6 --output panel.png

A run is a folder that ``train_net.py`` has written; its ``config.yaml`` says which model and data
(the first of ``DATASETS.TEST``). Columns are named by what tells the folders apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from torch import nn

from zss_d2.analysis.drawing import label_picture
from zss_d2.analysis.run_files import short_names
from zss_d2.analysis.runs import choose, load_runs, picture_command, picture_parser
from zss_d2.data.files.images import read_mask, read_photo
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.errors import command
from zss_d2.modeling.inference.pipeline import argmax_labels
from zss_d2.utils.command_line import Parser


@torch.inference_mode()
def predict(cfg: CfgNode, model: nn.Module, records: Sequence[dict]) -> list[np.ndarray]:
    """Label maps (H, W) of the records, at the original sizes."""
    mapper = ZeroShotMapper(cfg, is_train=False)
    outputs = (model([mapper(dict(record))])[0]["sem_seg"] for record in records)
    return [argmax_labels(scores).cpu().numpy() for scores in outputs]


def panel(folders: Sequence[Path], number: int, opts: Sequence[str] = ()) -> Figure:
    """The picture for runs that were tested on the same data set."""
    runs, dataset = load_runs(folders, opts)
    records = DatasetCatalog.get(dataset)
    metadata = MetadataCatalog.get(dataset)
    classes, unseen = metadata.stuff_classes, metadata.unseen_classes
    records = choose(records, number, [classes.index(name) for name in unseen])

    columns = [("ground truth", [read_mask(record["sem_seg_file_name"]) for record in records])]
    for name, (cfg, model) in zip(short_names(folders), runs, strict=True):
        columns.append((name, predict(cfg, model, records)))
    photos = [read_photo(record["file_name"]) for record in records]
    return label_picture(photos, columns, classes, unseen)


def make_parser() -> Parser:
    return picture_parser(__doc__, images=6, output="panel.png")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    return picture_command(make_parser().parse_args(argv), panel)
