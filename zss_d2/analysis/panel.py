"""A picture of images, their ground truth and what trained runs make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from torch import nn

from zss_d2.analysis.comparison import choose, load_models
from zss_d2.analysis.label_picture import label_picture
from zss_d2.analysis.names import short_names
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.files.images import read_image
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.modeling.inference import argmax_labels


@torch.inference_mode()
def predict(cfg: CfgNode, model: nn.Module, records: Sequence[dict]) -> list[np.ndarray]:
    """Label maps (H, W) of the records, at the original sizes."""
    mapper = ZeroShotMapper(cfg, is_train=False)
    outputs = (model([mapper(dict(record))])[0]["sem_seg"] for record in records)
    return [argmax_labels(scores).cpu().numpy() for scores in outputs]


def draw(folders: Sequence[Path], number: int, opts: Sequence[str] = ()) -> Figure:
    """The picture for runs that were tested on the same data set.

    Args:
        folders: of the runs, a column each.
        number: of images, a row each.
        opts: config keys and values, in turn.

    Raises:
        ZssError: as `load_models`.
    """
    models, dataset = load_models(folders, opts)
    metadata = MetadataCatalog.get(dataset)
    records = choose(DatasetCatalog.get(dataset), number, metadata)
    truth = [read_labels(record["sem_seg_file_name"], metadata) for record in records]
    columns = [("ground truth", truth)]
    for name, (cfg, model) in zip(short_names(folders), models, strict=True):
        columns.append((name, predict(cfg, model, records)))
    images = [read_image(record["file_name"]) for record in records]
    names, unseen = metadata.stuff_classes, metadata.unseen_classes
    return label_picture(images, columns, names, unseen, class_colors=metadata.get("colors"))
