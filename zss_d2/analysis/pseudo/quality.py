"""How good the pseudo labels of a run are against the ground truth that its training never saw."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from zss_d2.data.files.encoding import read_labels
from zss_d2.data.labels import hide_unseen
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.spec.benchmark import available_benchmarks
from zss_d2.errors import ZssError
from zss_d2.modeling.segmentor import ZeroShotSegmentor
from zss_d2.utils.sampling import evenly_spaced
from zss_d2.utils.writing import write_atomic

VOID, NONE = "void", "no label"


class Quality(NamedTuple):
    """Of the pixels that training sees no label of, in percent; NaN where there are none.

    Attributes:
        coverage: share of them that got a pseudo label.
        accuracy: share of the pseudo labels on unseen objects that are right.
        on_void: share of the pseudo labels that stand where nothing has a class.
        classes: by unseen class ``pixels``, ``coverage``, ``recall`` (share of its pixels that got
            its label) and ``precision`` (share of its pseudo labels that are right, void counting
            as wrong).
    """

    coverage: float
    accuracy: float
    on_void: float
    classes: dict[str, dict[str, float]]


def quality(pairs: np.ndarray, names: Sequence[str], unseen: Sequence[int]) -> Quality:
    """
    Args:
        pairs: (K + 1, K + 1) counts of pixels without a seen label: rows are the truth, columns
            the pseudo label; the last row is void, the last column no pseudo label.
        names: K.
        unseen: ids of unseen classes.
    """
    labelled = pairs[:, :-1]
    of_objects = labelled[list(unseen)]
    right = np.diag(labelled)

    def share(part: Any, whole: Any) -> float:
        return 100 * float(part) / float(whole) if whole else float("nan")

    classes = {
        names[i]: {
            "pixels": int(pairs[i].sum()),
            "coverage": share(labelled[i].sum(), pairs[i].sum()),
            "recall": share(right[i], pairs[i].sum()),
            "precision": share(right[i], labelled[:, i].sum()),
        }
        for i in unseen
    }
    return Quality(
        coverage=share(labelled.sum(), pairs.sum()),
        accuracy=share(right[list(unseen)].sum(), of_objects.sum()),
        on_void=share(labelled[-1].sum(), labelled.sum()),
        classes=classes,
    )


@torch.inference_mode()
def count_pairs(
    cfg: CfgNode, model: ZeroShotSegmentor, dataset: str, number: int
) -> tuple[np.ndarray, list[str], list[int]]:
    """`quality`'s arguments, of ``number`` images of a data set, evenly spaced, each as it is.

    Labels are those that the model gives by the settings of its self-training, without dropout and
    augmentation. Under the leaky PIXELS, which never label it, void is left out. Thresholds by
    quantile follow the images that came before, as in a training.

    Raises:
        ZssError: the data set is not registered, has other classes, or none that is unseen.
    """
    if dataset not in DatasetCatalog.list():
        raise ZssError(f"--dataset {dataset} is not registered; name one such as zss_mini_train")
    metadata = MetadataCatalog.get(dataset)
    names, ignore = list(metadata.stuff_classes), metadata.ignore_label
    if tuple(names) != model.classes or not metadata.unseen_classes:
        raise ZssError(
            f"--dataset {dataset} must have the classes of the training, some of them unseen; name "
            f"a split of {cfg.DATASETS.TRAIN[0]}"
        )
    unseen = [names.index(name) for name in metadata.unseen_classes]
    mapper, own = ZeroShotMapper(cfg, is_train=False), model.self_training
    written = None
    if own.settings.source == "offline":
        written = ZeroShotMapper(cfg, is_train=True).written(dataset)
    train_names = [names.index(name) for name in model.train_classes]
    to_ids = torch.tensor([*train_names, *[len(names)] * (ignore + 1)])
    pairs = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    records = DatasetCatalog.get(dataset)
    for index in tqdm(evenly_spaced(len(records), number), desc=dataset, unit="image"):
        record = records[index]
        truth = read_labels(record["sem_seg_file_name"], metadata)
        visible = hide_unseen(truth, unseen, ignore)
        if written is not None:
            labels = written.read(record["file_name"], truth.shape)
            kept = np.isin(labels, unseen) if own.settings.candidates == "unseen" else True
            labels = np.where(kept & (labels != ignore), labels, len(names))
        else:
            labels = _labels(model, mapper(dict(record))["image"], truth.shape, to_ids)
        hidden = visible == ignore
        if own.settings.leaky:
            hidden &= truth != ignore
        rows = np.where(truth == ignore, len(names), truth)[hidden].astype(np.int64)
        flat = rows * (len(names) + 1) + labels[hidden]
        pairs += np.bincount(flat, minlength=pairs.size).reshape(pairs.shape)
    return pairs, names, unseen


def _labels(
    model: ZeroShotSegmentor, image: Tensor, size: Sequence[int], to_ids: Tensor
) -> np.ndarray:
    """Pseudo label of every pixel (H, W) in ids of the data set; their number for none."""
    images = model.normalise(image)[None]
    height, width = model.padded_size(images.shape[2:])
    height, width = height - images.shape[2], width - images.shape[3]
    images = torch.nn.functional.pad(images, (0, width, 0, height))
    inside = image.shape[1:]
    labels = model.self_training.label(model, images, inside)[0]
    if tuple(labels.shape) != tuple(size):  # the network saw another size
        labels = torch.nn.functional.interpolate(labels[None, None].float(), tuple(size))[0, 0]
    return to_ids[labels.long().cpu()].numpy()


def chooses_by_what_is_reported(dataset: str) -> bool:
    """Whether the unseen classes of a data set are those of a benchmark, which tables report."""
    return MetadataCatalog.get(dataset).get("benchmark") in available_benchmarks()


def table(result: Quality) -> str:
    """The classes as text, percent."""
    rows = [[name, *values.values()] for name, values in result.classes.items()]
    head = ["class", "pixels", "coverage", "recall", "precision"]
    return tabulate(rows, head, tablefmt="github", floatfmt=".1f", disable_numparse=[0])


def write(result: Quality, path: Path) -> None:
    """A csv with a line per class."""
    text = io.StringIO()
    fields = ["class", "pixels", "coverage", "recall", "precision"]
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    rows: Iterator[Mapping[str, Any]] = ({"class": k, **v} for k, v in result.classes.items())
    writer.writerows(rows)
    write_atomic(path, lambda temporary: temporary.write_text(text.getvalue(), "utf-8"))
